// SPDX-License-Identifier: Apache-2.0
// The page: one answer at a time, with what its parts share: the filter, the span, the address.

import { read, type Account, type Answer, type Data, type Profile } from "./data";
import { append, h, replace, select, stepLine } from "./dom";
import { FindingsTable } from "./findings";
import { Flame } from "./flame";
import { Memory } from "./memory";
import { sitesMatching } from "./tree";
import { Courses } from "./watch";
import { amountText, percentText } from "./words";

export interface Span {
  from: number;
  to: number;
}

export class Page {
  span: Span | null = null;
  private number = -1;
  private table: FindingsTable | null = null;
  private flame: Flame | null = null;
  private memory: Memory | null = null;
  private courses: Courses | null = null;
  private readonly main = h("main", {});
  private readonly search = h("input", {
    type: "search",
    placeholder: "function, file, module, verdict",
    "aria-label": "Filter",
    oninput: () => this.filter(),
  });

  constructor(
    private readonly data: Data,
    private readonly root: HTMLElement,
  ) {
    const theme = h("button", { type: "button", onclick: () => this.theme() }, "light or dark");
    append(root, [
      h(
        "header",
        { class: "bar" },
        h("strong", {}, "leakscope"),
        this.answers.length > 1
          ? select(this.data.compare ? "Side" : "Process", this.answers.map((each, n): [string, string] => [String(n), `${n + 1}. ${each.subject}: ${each.headline}`.slice(0, 120)]), "0", (value) => this.go(Number(value)))
          : null,
        h("label", { class: "search" }, "Filter ", this.search),
        theme,
      ),
      this.main,
    ]);
    document.addEventListener("keydown", (event) => {
      const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement || event.target instanceof HTMLTextAreaElement;
      if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
        this.search.focus();
        event.preventDefault();
      }
    });
    window.addEventListener("hashchange", () => this.follow());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.flame?.recolour());
    window.addEventListener("beforeprint", () => this.flame?.recolour());
    window.addEventListener("afterprint", () => this.flame?.recolour());
    if (!this.follow()) this.go(this.first());
  }

  get answers(): Answer[] {
    return this.data.answers;
  }

  private first(): number {
    if (this.data.compare) return this.data.compare[1];
    const leaking = this.answers.findIndex((each) => each.tone === "alarm");
    return Math.max(leaking, 0);
  }

  /** The address of one finding within the page. */
  link(number: number, key: string): string {
    return `#${number + 1}/${encodeURIComponent(key)}`;
  }

  private follow(): boolean {
    const found = /^#(\d{1,6})(?:\/(.*))?$/.exec(location.hash);
    const number = found ? Number(found[1]) - 1 : -1;
    if (!found || !this.answers[number]) return false;
    if (number !== this.number) this.go(number);
    if (found[2]) {
      try {
        this.open(decodeURIComponent(found[2]));
      } catch {
        return true; // a broken address shows the answer alone
      }
    }
    return true;
  }

  open(key: string): void {
    this.table?.show(key);
  }

  private theme(): void {
    const root = document.documentElement;
    const dark = root.dataset["theme"] ? root.dataset["theme"] === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset["theme"] = dark ? "light" : "dark";
    this.flame?.recolour();
  }

  private go(number: number): void {
    this.number = number;
    this.span = null;
    const answer = this.answers[number];
    const chooser = this.root.querySelector<HTMLSelectElement>("header select");
    if (chooser) chooser.value = String(number);
    const { profile } = answer;
    const timed = profile && profile.times.length > 1 && profile.courseOf.length;
    this.memory = timed ? new Memory(this, answer, profile) : null;
    this.courses = answer.courses.length ? new Courses(this.data, answer) : null;
    this.table = answer.results.length || profile ? new FindingsTable(this, this.data, answer, number) : null;
    this.flame = null;
    const graph = h("div");
    replace(this.main, this.verdict(answer), this.memory?.element, graph, this.table?.element, this.courses?.element, coverage(answer));
    if (profile && profile.nodes.length) {
      this.flame = new Flame(this.data, this, profile, number);
      graph.replaceWith(this.flame.element);
    } else graph.remove();
    this.memory?.fit();
    this.flame?.fit();
    if (this.search.value) this.filter();
  }

  private verdict(answer: Answer): HTMLElement {
    return h(
      "section",
      { id: "verdict", class: answer.tone },
      h("h1", {}, answer.headline),
      h("p", {}, (answer.about[0]?.startsWith(answer.subject) ? answer.about : [answer.subject, ...answer.about]).join(" · ")),
      ...answer.warnings.map((text) => h("p", { class: "warning" }, `Warning: ${text}`)),
      ...answer.steps.map(stepLine),
      this.answers.length > 1 && !this.data.compare ? this.processes() : null,
      h("div", { class: "accounts" }, ...answer.accounts.map(account)),
    );
  }

  private processes(): HTMLElement {
    const cards = this.answers.slice(0, 200).map((each, n) =>
      h(
        "li",
        {},
        h("button", { type: "button", class: `process ${each.tone}`, "aria-current": n === this.number ? "true" : null, onclick: () => this.go(n) },
          h("strong", {}, each.subject), h("span", {}, each.headline)),
      ),
    );
    return h("details", { open: true }, h("summary", {}, `${this.answers.filter((each) => each.tone === "alarm").length} of ${this.answers.length} processes leak`), h("ul", { class: "processes" }, ...cards));
  }

  clearFilter(): void {
    if (!this.search.value) return;
    this.search.value = "";
    this.filter();
  }

  private filter(): void {
    const text = this.search.value.trim();
    const { profile } = this.answers[this.number];
    const matching = text && profile ? this.data.places.matching(text) : null;
    const wanted = matching && profile ? sitesMatching(profile, matching) : null;
    this.table?.filter(text, wanted);
    this.flame?.filter(matching, wanted);
    this.courses?.filter(text);
  }

  setSpan(span: Span | null): void {
    this.span = span;
    this.flame?.spanChanged();
    this.table?.spanChanged();
  }

  /** What each site held at the end of a span; nothing where its course is not known. */
  atEnd(profile: Profile, span: Span): Float64Array {
    return this.courseAt(profile, span.to);
  }

  /** `row` is one of the profile that is shown; another one was looked at at other moments. */
  private courseAt(profile: Profile, row: number): Float64Array {
    const rows = profile.times.length;
    const shown = this.answers[this.number].profile;
    let moment = row;
    if (shown && profile !== shown) {
      const time = shown.times[row];
      moment = Math.max(profile.times.filter((each) => each <= time).length - 1, 0);
    }
    const found = new Float64Array(profile.nodes.length);
    for (let row = 0; row < profile.courseOf.length; row++) found[profile.courseOf[row]] = profile.courses[row * rows + Math.min(moment, rows - 1)];
    return found;
  }

  /** By how much each site grew in a span, NaN where its course is not known. */
  change(profile: Profile, span: Span): Float64Array {
    const from = this.courseAt(profile, span.from);
    const to = this.courseAt(profile, span.to);
    return to.map((value, site) => (profile.courseRow[site] < 0 ? NaN : value - from[site]));
  }

  grown(profile: Profile, span: Span): Float64Array {
    return this.change(profile, span).map((value) => Math.max(value || 0, 0));
  }
}

function account(each: Account): HTMLElement {
  const rows = each.rows.map(([name, amount, what, tone]) => {
    const share = each.total > 0 ? (100 * amount) / each.total : 0;
    const bar = h("meter", { min: "0", max: "100", value: share.toFixed(2), class: tone, "aria-label": `share of ${name}` });
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, name),
      h("td", { class: "number" }, amountText(amount, each.unit)),
      h("td", { class: "number" }, percentText(amount, each.total)),
      h("td", {}, bar),
      h("td", { class: "dim" }, what),
    );
  });
  return h(
    "table",
    { class: "account" },
    h("caption", {}, each.title),
    h("tbody", {}, ...rows),
    h("tfoot", {}, h("tr", {}, h("th", { scope: "row" }, each.totalName), h("td", { class: "number" }, amountText(each.total, each.unit)), h("td"), h("td"), h("td"))),
  );
}

function coverage(answer: Answer): HTMLElement {
  const rows = answer.coverage.flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]);
  return h("section", { id: "coverage", "aria-labelledby": "coverage-title" }, h("h2", { id: "coverage-title" }, "What was seen, and what was not"), h("dl", {}, ...rows));
}

async function start(): Promise<void> {
  const element = document.getElementById("data");
  const app = document.getElementById("app");
  const text = document.getElementById("text");
  if (!element || !app || !text) return;
  const data = await read(element);
  element.remove(); // it is read, and may be large
  app.hidden = false;
  text.remove();
  new Page(data, app);
  performance.mark("leakscope-shown");
}

start().catch((error: unknown) => {
  // The text stays: say why there is no more than that.
  document.getElementById("app")?.remove();
  const why = error instanceof Error ? error.message : String(error);
  document.body.prepend(h("p", { class: "warning" }, `This browser cannot draw the page (${why}); here is its text.`));
});
