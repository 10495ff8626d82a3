// Makes elements without markup, so that a person's name can never become markup.

/**
 * An element with children. A function is a listener: `onclick` of clicks; what it returns cancels nothing, and a form
 * that has one never leaves the page. Names of DOM properties are set as properties; the rest as attributes.
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

/** An SVG element with children. All names are attributes. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children)
  return element
}
