/** Small helpers for the page. */

/**
 * An element of the page. Throws if there is none, since the page and its scripts come together.
 *
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`The page has no element '${id}'.`);
  return element;
}

/**
 * A new element.
 *
 * @param {string} tag
 * @param {Record<string, unknown>} [properties]   those of the element; names with a dash and `for`, `role` are attributes
 * @param {...(Node|string|null|false)} children   empty ones are left out
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes('-') || name === 'for' || name === 'role') element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== false && child !== ''));
  return element;
}

/** An icon of the page's own sheet. @param {string} name */
export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  use.setAttribute('href', `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Copy a text, and say so on the button for a moment. @param {HTMLElement} button @param {string} text */
export async function copyFrom(button, text) {
  const isCopied = await navigator.clipboard.writeText(text).then(
    () => true,
    () => copyBySelection(text), // an insecure page has no clipboard of its own
  );
  button.dataset.copied = isCopied ? 'yes' : 'no';
  announce(isCopied ? 'Copied' : 'The browser did not allow copying');
  setTimeout(() => delete button.dataset.copied, 1600);
}

function copyBySelection(text) {
  const area = make('textarea', { value: text, className: 'visually-hidden' });
  document.body.append(area);
  area.select();
  const isCopied = document.execCommand('copy');
  area.remove();
  return isCopied;
}

/** Say something to screen readers only. @param {string} text */
export function announce(text) {
  const region = byId('announcer');
  region.append(make('p', {}, text));
  while (region.children.length > 4) region.firstChild.remove();
}

/** Tabs as the ARIA practices describe them: arrows move, only the chosen one is in the order of Tab. */
export function wireTabs(list, onchange = () => {}) {
  const tabs = [...list.querySelectorAll('[role=tab]')];
  const choose = (chosen) => {
    for (const tab of tabs) {
      const isChosen = tab === chosen;
      tab.setAttribute('aria-selected', String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
      const panel = byId(tab.getAttribute('aria-controls'));
      if (panel.getAttribute('aria-labelledby') === tab.id || isChosen) panel.hidden = !isChosen;
      if (isChosen) panel.setAttribute('aria-labelledby', tab.id);
    }
    onchange(chosen);
  };
  for (const tab of tabs) tab.addEventListener('click', () => choose(tab));
  list.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -tabs.length, End: tabs.length }[event.key];
    if (!step) return;
    event.preventDefault();
    const place = tabs.indexOf(document.activeElement) + step;
    const wraps = event.key.startsWith('Arrow');
    const next = wraps ? (place + tabs.length) % tabs.length : Math.max(0, Math.min(tabs.length - 1, place));
    tabs[next].focus();
    choose(tabs[next]);
  });
}
