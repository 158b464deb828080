// SPDX-License-Identifier: Apache-2.0
// Elements from values. Text is only ever set as text: nothing here parses markup.

export type Child = Node | string | number | null | undefined | false;
type Attributes = Record<string, unknown>;

const SVG = "http://www.w3.org/2000/svg";

function fill<E extends Element>(element: E, attributes: Attributes, children: Child[]): E {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on") && typeof value === "function") {
      element.addEventListener(name.slice(2), value as EventListener);
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  append(element, children);
  return element;
}

export function append(element: Element, children: Child[]): void {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  return fill(document.createElement(tag), attributes, children);
}

export function s<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  return fill(document.createElementNS(SVG, tag) as SVGElementTagNameMap[K], attributes, children);
}

export function replace(element: Element, ...children: Child[]): void {
  element.textContent = "";
  append(element, children);
}

export function select(
  label: string,
  options: [string, string][],
  value: string,
  change: (value: string) => void,
): HTMLLabelElement {
  const box = h("select", { onchange: () => change(box.value) });
  for (const [name, text] of options) box.append(h("option", { value: name, selected: name === value }, text));
  return h("label", {}, label, " ", box);
}

export function checkbox(label: string, value: boolean, change: (value: boolean) => void): HTMLLabelElement {
  const box = h("input", { type: "checkbox", onchange: () => change(box.checked) });
  box.checked = value;
  return h("label", {}, box, " ", label);
}

/** A command, and a button that copies it. */
export function command(text: string): HTMLElement {
  const button = h("button", { type: "button", class: "copy", onclick: () => void copy(text, button) }, "copy");
  return h("span", { class: "command" }, h("code", {}, text), " ", button);
}

export async function copy(text: string, button: HTMLButtonElement): Promise<void> {
  const before = button.textContent;
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    const area = h("textarea", { readonly: true, "aria-hidden": "true" }, text);
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = done ? "copied" : "select and copy";
  setTimeout(() => (button.textContent = before), 1500);
}

/** The value of a colour of the style sheet. */
export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

let numbers = 0;
export function unique(prefix: string): string {
  numbers += 1;
  return `${prefix}-${numbers}`;
}

/** What to do next; the command that a step ends in stands apart, to be copied. */
export function stepLine(step: { text: string; command: string | null }): HTMLElement {
  const { text, command: typed } = step;
  const said = typed && text.endsWith(typed) ? text.slice(0, text.length - typed.length) : text;
  return h("p", { class: "step" }, said || !typed ? `Next: ${said} ` : "Next: ", typed ? command(typed) : null);
}
