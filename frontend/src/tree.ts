// SPDX-License-Identifier: Apache-2.0
// Call stacks merged into one tree: from the program's start, from where memory is allocated, or
// around one function. Nodes are numbers, and a child has a larger one than its parent.

import type { Places, Profile } from "./data";

export type Order = "stacks" | "callers" | "callees";

/** What one place holds, before and now, by how bad it is. */
export interface Weights {
  /** By site of the profile. */
  now: Float64Array;
  before: Float64Array | null;
}

export const CLASSES = ["alarm", "warning", "calm", "quiet"] as const;

/** How bad each verdict of a profile is, as an index of CLASSES. */
export function classOf(verdict: string): number {
  if (verdict === "lost" || verdict === "leaking") return 0;
  if (verdict === "growing" || verdict === "filling" || verdict === "unknown") return 1;
  return verdict === "known" || verdict === "" ? 3 : 2;
}

const SHIFT = 4194304; // more groups than there are places

export class Tree {
  private parent: number[] = [0];
  private groups: number[] = [-1];
  private place: number[] = [0];
  private readonly children = new Map<number, number>();
  /** Where the stack of each site ends, by profile: -1 where it is not in the tree. */
  readonly ends: Int32Array[] = [];
  total = new Float64Array(1);
  totalBefore = new Float64Array(1);
  /** By node: what its width is. */
  weight = new Float64Array(1);
  private shares: Float64Array[] = [];
  private firstChild = new Int32Array(1);
  private nextSibling = new Int32Array(1);

  /** `focus` is a group of places, -1 for none. Several profiles give one tree of all stacks. */
  constructor(
    readonly profiles: Profile[],
    readonly places: Places,
    readonly order: Order,
    readonly hideRuntime: boolean,
    readonly focus: number,
  ) {
    for (const profile of profiles) this.ends.push(this.add(profile));
    this.link();
  }

  get size(): number {
    return this.parent.length;
  }

  private child(parent: number, place: number): number {
    const group = this.places.group[place];
    const key = parent * SHIFT + group;
    let found = this.children.get(key);
    if (found === undefined) {
      found = this.parent.length;
      this.parent.push(parent);
      this.groups.push(group);
      this.place.push(place);
      this.children.set(key, found);
    }
    return found;
  }

  private hidden(place: number): boolean {
    return this.hideRuntime && !this.places.own(place);
  }

  private add(profile: Profile): Int32Array {
    const { parents, places, nodes } = profile;
    const ends = new Int32Array(nodes.length).fill(-1);
    if (this.order === "stacks" || (this.order === "callees" && this.focus < 0)) {
      const merged = new Int32Array(parents.length);
      for (let node = 1; node < parents.length; node++) {
        const above = merged[parents[node]];
        merged[node] = this.hidden(places[node]) ? above : this.child(above, places[node]);
      }
      for (let site = 0; site < nodes.length; site++) ends[site] = merged[nodes[site]];
      return ends;
    }
    const stack: number[] = [];
    for (let site = 0; site < nodes.length; site++) {
      stack.length = 0;
      for (let node = nodes[site]; node > 0; node = parents[node]) {
        if (!this.hidden(places[node])) stack.push(places[node]);
      }
      // `stack` is innermost first.
      let first = 0;
      if (this.focus >= 0) {
        const is = (place: number): boolean => this.places.group[place] === this.focus;
        first = this.order === "callees" ? stack.length - 1 - [...stack].reverse().findIndex(is) : stack.findIndex(is);
        if (first < 0 || first >= stack.length) continue;
      }
      let node = 0;
      if (this.order === "callers") {
        for (let n = first; n < stack.length; n++) node = this.child(node, stack[n]);
      } else {
        for (let n = first; n >= 0; n--) node = this.child(node, stack[n]);
      }
      ends[site] = node;
    }
    return ends;
  }

  private link(): void {
    this.firstChild = new Int32Array(this.size).fill(0);
    this.nextSibling = new Int32Array(this.size).fill(0);
    for (let node = this.size - 1; node > 0; node--) {
      const parent = this.parent[node];
      this.nextSibling[node] = this.firstChild[parent];
      this.firstChild[parent] = node;
    }
  }

  /** Fill in what the sites hold. Of two profiles the first is now and the second before. */
  weigh(measures: Float64Array[], wanted: (Uint8Array | null)[]): void {
    const size = this.size;
    this.total = new Float64Array(size);
    this.totalBefore = new Float64Array(size);
    this.weight = new Float64Array(size);
    this.shares = CLASSES.map(() => new Float64Array(size));
    this.profiles.forEach((profile, which) => {
      const into = which ? this.totalBefore : this.total;
      const classes = profile.verdictNames.map(classOf);
      const { [which]: ends } = this.ends;
      const { [which]: measure } = measures;
      const { [which]: only } = wanted;
      for (let site = 0; site < ends.length; site++) {
        const value = measure[site];
        if (ends[site] < 0 || !(value > 0) || (only && !only[site])) continue;
        into[ends[site]] += value;
        if (!which) this.shares[classes[profile.verdicts[site]]][ends[site]] += value;
      }
    });
    for (let node = 0; node < size; node++) this.weight[node] = Math.max(this.total[node], this.totalBefore[node]);
    const all = [this.total, this.totalBefore, this.weight, ...this.shares];
    for (const each of all) {
      for (let node = size - 1; node > 0; node--) each[this.parent[node]] += each[node];
    }
  }

  /** Children that hold something, heaviest first. */
  childrenOf(node: number): number[] {
    const found: number[] = [];
    for (let each = this.firstChild[node]; each; each = this.nextSibling[each]) {
      if (this.weight[each] > 0) found.push(each);
    }
    return found.sort((a, b) => this.weight[b] - this.weight[a]);
  }

  parentOf(node: number): number {
    return this.parent[node];
  }

  placeOf(node: number): number {
    return this.place[node];
  }

  groupOf(node: number): number {
    return this.groups[node];
  }

  /** The index in CLASSES of what most of a node's bytes are. */
  classOf(node: number): number {
    let best = 3;
    for (let n = 0; n < CLASSES.length; n++) if (this.shares[n][node] > this.shares[best][node]) best = n;
    return best;
  }

  name(node: number): string {
    return node ? this.places.name(this.place[node]) : this.focus >= 0 ? "all that goes through it" : "all";
  }
}

/** Which sites have a frame among `matching` places on their stack. */
export function sitesMatching(profile: Profile, matching: Uint8Array): Uint8Array {
  const { parents, places, nodes } = profile;
  const on = new Uint8Array(parents.length);
  for (let node = 1; node < parents.length; node++) on[node] = on[parents[node]] | matching[places[node]];
  const found = new Uint8Array(nodes.length);
  for (let site = 0; site < nodes.length; site++) found[site] = on[nodes[site]];
  return found;
}
