// Small hands for the document. Text is always text: no markup is ever made from strings.

export const byId = (id) => document.getElementById(id);

/** An element: `el("button", {type: "button", "aria-pressed": "true"}, "Pause")`. Names with a hyphen are attributes, others properties. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const STEPS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };

/** One tab stop for the many buttons of a list: arrows, Home and End move within; `moved` hears of the button that has the focus then. */
export function rove(list, selector, moved = () => {}) {
  const settle = (current) => {
    for (const button of list.querySelectorAll(selector)) button.tabIndex = button === current ? 0 : -1;
  };
  list.addEventListener("focusin", (event) => event.target.matches(selector) && settle(event.target));
  list.addEventListener("keydown", (event) => {
    const buttons = [...list.querySelectorAll(selector)];
    const from = buttons.indexOf(document.activeElement);
    if (from < 0) return;
    const last = buttons.length - 1;
    const to = { Home: 0, End: last }[event.key] ?? (event.key in STEPS ? from + STEPS[event.key] : null);
    if (to === null) return;
    event.preventDefault();
    const target = buttons[Math.max(0, Math.min(last, to))];
    target.focus();
    moved(target);
  });
  /** Call after buttons came or went: there is always exactly one tab stop. */
  return () => {
    if (!list.querySelector(`${selector}[tabindex="0"]`)) {
      const first = list.querySelector(selector);
      if (first) first.tabIndex = 0;
    }
  };
}

/** Runs `draw` once in the next frame, however often it is asked to. A hidden tab, which has no frames, waits until it is seen. */
export function eachFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}
