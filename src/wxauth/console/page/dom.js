// Functions that make elements without markup, so that a user's name can never become markup.

/**
 * Make an element with children, which can be elements, texts, and lists of them. A function is added as a listener,
 * for example `onclick` for clicks. The browser does not submit a form with the listener `onsubmit`. Other names are
 * set as DOM properties if the element has them, otherwise as attributes. Properties that are null or undefined are
 * left out, and so are children that are null, undefined or false.
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue
    if (name === 'class') element.className = value
    else if (name === 'onsubmit') element.addEventListener('submit', withoutDefault(value))
    else if (typeof value === 'function') element.addEventListener(name.slice(2), value)
    else if (name in element) element[name] = value
    else element.setAttribute(name, value)
  }
  const isShown = (child) => child !== null && child !== undefined && child !== false
  element.append(...children.flat(Infinity).filter(isShown))
  return element
}

const withoutDefault = (listener) => (event) => {
  event.preventDefault()
  listener(event)
}

/** Make an SVG element with children. All names are attributes. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children)
  return element
}
