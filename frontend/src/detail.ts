// SPDX-License-Identifier: Apache-2.0
// One finding, opened: source, stack, evidence for and against, plots, who holds it, what to do.

import type { Answer, Data, Holding, Profile, Result } from "./data";
import { copy, h, stepLine, type Child } from "./dom";
import type { Page } from "./main";
import { agesPlot, birthsPlot, coursePlot } from "./plots";
import { bytesText, plural } from "./words";

const MOST_STEPS = 9; // of a path from a root

export function detail(page: Page, data: Data, answer: Answer, number: number, result: Result | null, site: number | null): HTMLElement {
  const { profile } = answer;
  const parts: Child[] = [];
  if (result) {
    const facts = [result.amountText, result.remark, result.quiet ? `quiet: ${result.quiet}` : ""].filter(Boolean);
    parts.push(h("p", {}, facts.join(" · ")), h("p", { class: "sentence" }, result.sentence));
  }
  if (result?.source.length) parts.push(source(result));
  const plots = profile && site !== null ? plotsOf(page, profile, site, result) : [];
  if (plots.length) parts.push(h("div", { class: "plots" }, ...plots));
  if (result?.evidence.length) {
    const side = (supports: boolean): Child => {
      const rows = result.evidence.filter((each) => each[1] === supports);
      return rows.length
        ? h("div", {}, h("h4", {}, supports ? "What speaks for it" : "What speaks against it"), h("ul", { class: supports ? "for" : "against" }, ...rows.map(([text]) => h("li", {}, text))))
        : null;
    };
    parts.push(h("div", { class: "sides" }, side(true), side(false)));
  }
  for (const stack of result?.stacks ?? []) parts.push(stackList(data, stack.title, stack.places, stack.source));
  if (!result && profile && site !== null) parts.push(stackList(data, "Allocated at", placesOf(profile, site), null));
  if (result?.holders.length) parts.push(h("h4", {}, "Who holds it"), ...result.holders.map((each) => holder(data, answer, each)));
  if (result?.lines.length) parts.push(h("pre", { class: "lines", tabindex: "0" }, result.lines.join("\n")));
  if (result?.step) parts.push(stepLine(result.step));
  const link = page.link(number, result ? result.key : `site-${profile?.sites[site ?? 0] ?? 0}`);
  const button = h("button", { type: "button", class: "copy", onclick: () => void copy(location.href.replace(/#.*$/, "") + link, button) }, "copy link");
  parts.push(h("p", { class: "dim" }, result ? result.identities.join(", ") + " " : answer.command === "diff" ? "no more and no less than before " : "no finding: mostly given back, small, or one of very many ", h("a", { href: link }, "link to this"), " ", button));
  return h("div", { class: "detail" }, ...parts);
}

/** The places on the stack of a site, innermost first. */
export function placesOf(profile: Profile, site: number): number[] {
  const found: number[] = [];
  for (let node = profile.nodes[site]; node > 0; node = profile.parents[node]) found.push(profile.places[node]);
  return found;
}

function source(result: Result): HTMLElement {
  const rows = result.source.map(([number, text]) =>
    h("span", { class: number === result.sourceLine ? "marked" : "" }, `${number === result.sourceLine ? "▶" : " "} ${String(number).padStart(5)} │ ${text}\n`),
  );
  return h("pre", { class: "source", tabindex: "0", "aria-label": `source around ${result.where}` }, ...rows);
}

function plotsOf(page: Page, profile: Profile, site: number, result: Result | null): Node[] {
  const found: Node[] = [];
  const rows = profile.times.length;
  const end = rows ? profile.times[rows - 1] : 0;
  const row = profile.courseRow[site];
  if (row >= 0 && rows > 1) {
    const span = page.span;
    found.push(
      coursePlot(
        "live bytes",
        profile.times,
        profile.courses.subarray(row * rows, (row + 1) * rows),
        end,
        span && [profile.times[span.from], profile.times[span.to]],
      ),
    );
  }
  if (result?.lives && result.lives.births.some((each) => each > 0)) {
    found.push(birthsPlot(result.lives, end));
    found.push(agesPlot(result.lives));
  }
  return found;
}

function stackList(data: Data, title: string, places: number[], marked: number | null): HTMLElement {
  const rows = places.map((place, n) =>
    h(
      "li",
      { class: n === marked ? "marked" : data.places.own(place) ? "" : "runtime" },
      h("span", { class: "function" }, (n === marked ? "▶ " : "") + data.places.name(place)),
      data.places.inlined(place) ? " (inlined)" : null,
      " ",
      h("span", { class: "dim" }, data.places.where(place)),
    ),
  );
  return h("div", {}, h("h4", {}, title), h("ol", { class: "stack", start: "0" }, ...rows));
}

function holder(data: Data, answer: Answer, holding: Holding): HTMLElement {
  const { profile } = answer;
  let steps = holding.path.map(([name, offset, size, site]): Child => {
    const at = offset ? ` + ${offset}` : "";
    if (name !== null) return h("span", { class: "node root" }, name + at);
    let from = "";
    const row = site === null || !profile ? -1 : profile.sites.indexOf(site);
    if (profile && row >= 0) {
      const own = placesOf(profile, row).find((place) => data.places.own(place));
      if (own !== undefined) from = ` from ${data.places.name(own)}`;
    }
    return h("span", { class: "node" }, `block of ${bytesText(size ?? 0)}${from}${at}`);
  });
  if (!steps.length) steps = [h("span", { class: "node root" }, holding.root)];
  if (steps.length > MOST_STEPS) {
    const left = steps.length - MOST_STEPS + 1;
    steps = [...steps.slice(0, 4), h("span", { class: "node" }, `… ${plural(left, "more block")} …`), ...steps.slice(-4)];
  }
  const chain: Child[] = [];
  for (const step of steps) chain.push(step, h("span", { class: "arrow", "aria-label": "points to" }, "→"));
  return h("div", { class: "holder" }, ...chain, h("span", { class: "node here" }, "this block"));
}
