/**
 * Our own elements on somebody else's page: a shadow root against its styles, constructed style
 * sheets and plain DOM calls so that a strict Content-Security-Policy or Trusted Types allow them.
 */

type Child = Node | string;

export function h<K extends keyof HTMLElementTagNameMap>(
  name: K,
  attributes: Record<string, string> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export function entry(term: string, ...children: Child[]): HTMLElement[] {
  return [h('dt', {}, term), h('dd', {}, ...children)];
}

export function button(text: string, pressed: (event: MouseEvent) => void): HTMLButtonElement {
  const element = h('button', { type: 'button' }, text);
  element.onclick = pressed;
  return element;
}

/** Three tabs that belong together. */
export function mark(): HTMLElement {
  return h('i', { class: 'mark' });
}

export interface Surface {
  host: HTMLElement;
  root: ShadowRoot;
}

export function surface(css: string): Surface {
  const host = document.createElement('kwaai-net');
  const root = host.attachShadow({ mode: 'open' });
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(BASE + css);
  root.adoptedStyleSheets = [sheet];
  document.body.append(host);
  return { host, root };
}

const BASE = `
:host{all:initial;color-scheme:light dark;
--paper:light-dark(#fcfbf8,#171d1c);--ink:light-dark(#1b2422,#e9eeeb);--soft:light-dark(#55625e,#a3b0ab);
--line:light-dark(#d9ddd6,#35403d);--deep:light-dark(#0d5c4f,#7fdcc6);--on:light-dark(#fff,#0c1f1b)}
*{box-sizing:border-box;margin:0;font:inherit;color:inherit}
.k{font:400 15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);font-variant-numeric:tabular-nums}
.mark{--dot:var(--deep) 3.6px,#0000 4px;width:22px;height:22px;flex:none;
background:radial-gradient(circle at 11px 5px,var(--dot)),radial-gradient(circle at 4px 17px,var(--dot)),radial-gradient(circle at 18px 17px,var(--dot))}
button{min-height:44px;padding:8px 16px;border:1.5px solid var(--deep);border-radius:12px;background:none;font-weight:600;cursor:pointer}
button:focus-visible{outline:3px solid var(--deep);outline-offset:2px}
[hidden]{display:none!important}
`;
