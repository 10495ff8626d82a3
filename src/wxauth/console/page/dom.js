// Elements that are made without markup, so that a user's name can never become markup.

/**
 * Make an element with children. A function is added as a listener, for example `onclick` for clicks. A form with the
 * listener `onsubmit` is not submitted by the browser. Names of DOM properties are set as properties, and all other
 * names as attributes. Children that are null, undefined or false are left out.
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue
    if (name === 'class') element.className = value
    else if (name === 'onsubmit') element.addEventListener('submit', (event) => (event.preventDefault(), value(event)))
    else if (typeof value === 'function') element.addEventListener(name.slice(2), value)
    else if (name in element) element[name] = value
    else element.setAttribute(name, value)
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false))
  return element
}

/** Make an SVG element with children. All names are attributes. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children)
  return element
}
