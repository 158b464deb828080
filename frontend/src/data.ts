// SPDX-License-Identifier: Apache-2.0
// The data of the page, as src/leakscope/report/html/encode.py writes it.

export type Tone = "alarm" | "warning" | "calm";
export type Reference = [kind: "float64" | "float32" | "int32" | "uint8", at: number, length: number];
export type Numbers = Float64Array | Float32Array | Int32Array | Uint8Array;

export interface Step {
  text: string;
  command: string | null;
}

export interface Account {
  title: string;
  unit: string;
  total: number;
  totalName: string;
  rows: [name: string, amount: number, what: string, tone: Tone][];
}

export interface Stack {
  title: string;
  places: number[];
  source: number | null;
}

export interface Lives {
  births: number[];
  living: number[];
  dead: number[];
  tickNs: number;
  lifetimeNs: number | null;
}

export interface Holding {
  root: string;
  count: number;
  path: [holder: string | null, offset: number, size: number | null, site: number | null][];
}

export interface Result {
  key: string;
  verdict: string;
  tone: Tone;
  title: string;
  where: string;
  sentence: string;
  amount: number | null;
  amountText: string;
  /** Bytes more than before, of two that are compared. */
  change: number | null;
  count: number | null;
  rate: number | null;
  remark: string;
  quiet: string | null;
  step: Step | null;
  evidence: [text: string, supports: boolean][];
  stacks: Stack[];
  source: [line: number, text: string][];
  sourceLine: number | null;
  site: number | null;
  lives: Lives | null;
  holders: Holding[];
  lines: string[];
  identities: string[];
}

export interface Course {
  name: string;
  subject: string;
  verdict: string;
  tone: Tone;
  unit: string;
  times: Reference;
  values: Reference;
  sentence: string;
  step: Step | null;
  cuts: [time: number, reason: string][];
  fit: [time: number, value: number, low: number, high: number][];
  limit: number | null;
  limitText: string;
  facts: string[];
}

interface StoredProfile {
  parents: Reference;
  places: Reference;
  sites: Reference;
  nodes: Reference;
  kindOf: Reference;
  kinds: string[];
  verdicts: Reference;
  verdictNames: string[];
  measures: Record<string, Reference>;
  times: Reference;
  live: Reference;
  resident: Reference | null;
  courses: Reference;
  courseOf: Reference;
}

interface Stored {
  version: number;
  answers: (Omit<Answer, "profile"> & { profile: StoredProfile | null })[];
  compare: [number, number] | null;
  places: Record<"function" | "file" | "line" | "module" | "flags", Reference>;
  strings: string[];
}

/** All call stacks of one recording; see `Profile` in src/leakscope/model/answers.py. */
export interface Profile {
  parents: Int32Array;
  places: Int32Array;
  sites: Int32Array;
  nodes: Int32Array;
  kindOf: Uint8Array;
  kinds: string[];
  verdicts: Uint8Array;
  verdictNames: string[];
  measures: Record<string, Float64Array>;
  times: Float64Array;
  live: Float64Array;
  resident: Float64Array | null;
  courses: Float32Array;
  courseOf: Int32Array;
  /** The row in `courses` of each site, -1 for none. */
  courseRow: Int32Array;
}

export interface Answer {
  command: string;
  subject: string;
  tone: Tone;
  headline: string;
  about: string[];
  warnings: string[];
  steps: Step[];
  accounts: Account[];
  results: Result[];
  leftOut: number;
  courses: Course[];
  coverage: [name: string, text: string][];
  profile: Profile | null;
}

const TYPES = { float64: Float64Array, float32: Float32Array, int32: Int32Array, uint8: Uint8Array };

/** The frames that stacks are made of. */
export class Places {
  private readonly functions: Int32Array;
  private readonly files: Int32Array;
  private readonly lines: Int32Array;
  private readonly modules: Int32Array;
  private readonly flags: Int32Array;
  /** Places of one function in one module have one group. */
  readonly group: Int32Array;
  /** One place of each group. */
  readonly groupPlace: number[] = [];
  private lower: string[] | null = null;

  constructor(private readonly strings: string[], columns: Record<string, Numbers>) {
    this.functions = columns["function"] as Int32Array;
    this.files = columns["file"] as Int32Array;
    this.lines = columns["line"] as Int32Array;
    this.modules = columns["module"] as Int32Array;
    this.flags = columns["flags"] as Int32Array;
    this.group = new Int32Array(this.functions.length);
    const known = new Map<number, number>();
    for (let n = 0; n < this.group.length; n++) {
      const key = this.functions[n] * 4194304 + this.base(this.modules[n]);
      let group = known.get(key);
      if (group === undefined) {
        group = this.groupPlace.length;
        this.groupPlace.push(n);
        known.set(key, group);
      }
      this.group[n] = group;
    }
  }

  private readonly bases = new Map<string, number>();
  private readonly baseOf = new Map<number, number>();
  /** A module is the same under another path. */
  private base(module: number): number {
    if (module < 0) return 0;
    let found = this.baseOf.get(module);
    if (found === undefined) {
      const name = this.strings[module].replace(/^.*\//, "");
      found = this.bases.get(name) ?? this.bases.size + 1;
      this.bases.set(name, found);
      this.baseOf.set(module, found);
    }
    return found;
  }

  get length(): number {
    return this.group.length;
  }

  name(place: number): string {
    return this.strings[this.functions[place]];
  }

  /** "file:line", or the module. */
  where(place: number): string {
    const file = this.files[place];
    if (file < 0) return this.modules[place] < 0 ? "" : this.strings[this.modules[place]];
    return this.lines[place] > 0 ? `${this.strings[file]}:${this.lines[place]}` : this.strings[file];
  }

  module(place: number): string {
    return this.modules[place] < 0 ? "" : this.strings[this.modules[place]].replace(/^.*\//, "");
  }

  own(place: number): boolean {
    return (this.flags[place] & 1) !== 0;
  }

  inlined(place: number): boolean {
    return (this.flags[place] & 2) !== 0;
  }

  /** Which places contain `text` in their function, file or module. */
  matching(text: string): Uint8Array {
    this.lower ??= this.strings.map((each) => each.toLowerCase());
    const wanted = text.toLowerCase();
    const strings = this.lower.map((each) => each.includes(wanted));
    const found = new Uint8Array(this.length);
    for (let n = 0; n < found.length; n++) {
      const { functions, files, modules } = this;
      found[n] = +(
        strings[functions[n]] || (files[n] >= 0 && strings[files[n]]) || (modules[n] >= 0 && strings[modules[n]])
      );
    }
    return found;
  }
}

export class Data {
  constructor(
    readonly answers: Answer[],
    readonly places: Places,
    readonly compare: [number, number] | null,
    private readonly buffer: ArrayBuffer,
    private readonly base: number,
  ) {}

  column(reference: Reference): Numbers {
    return column(this.buffer, this.base, reference);
  }
}

function column(buffer: ArrayBuffer, base: number, [kind, at, length]: Reference): Numbers {
  return new TYPES[kind](buffer, base + at, length);
}

export async function read(element: Element): Promise<Data> {
  const binary = atob(element.textContent ?? "");
  const packed = new Uint8Array(binary.length);
  for (let n = 0; n < binary.length; n++) packed[n] = binary.charCodeAt(n);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const base = 8 + length;
  const stored = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length))) as Stored;
  const get = (reference: Reference): Numbers => column(buffer, base, reference);
  const columns: Record<string, Numbers> = {};
  for (const [name, reference] of Object.entries(stored.places)) columns[name] = get(reference);
  const places = new Places(stored.strings, columns);
  const answers = stored.answers.map((answer) => ({
    ...answer,
    profile: answer.profile && profile(answer.profile, get),
  }));
  return new Data(answers, places, stored.compare, buffer, base);
}

function profile(stored: StoredProfile, get: (reference: Reference) => Numbers): Profile {
  const nodes = get(stored.nodes) as Int32Array;
  const courseOf = get(stored.courseOf) as Int32Array;
  const courseRow = new Int32Array(nodes.length).fill(-1);
  courseOf.forEach((site, row) => (courseRow[site] = row));
  const measures: Record<string, Float64Array> = {};
  for (const [name, reference] of Object.entries(stored.measures)) measures[name] = get(reference) as Float64Array;
  return {
    parents: get(stored.parents) as Int32Array,
    places: get(stored.places) as Int32Array,
    sites: get(stored.sites) as Int32Array,
    nodes,
    kindOf: get(stored.kindOf) as Uint8Array,
    kinds: stored.kinds,
    verdicts: get(stored.verdicts) as Uint8Array,
    verdictNames: stored.verdictNames,
    measures,
    times: get(stored.times) as Float64Array,
    live: get(stored.live) as Float64Array,
    resident: stored.resident && (get(stored.resident) as Float64Array),
    courses: get(stored.courses) as Float32Array,
    courseOf,
    courseRow,
  };
}
