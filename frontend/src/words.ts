// SPDX-License-Identifier: Apache-2.0
// Numbers, sizes, times and rates as text: the same as src/leakscope/words, and a test compares.

function whole(value: number): number {
  return Math.round(settled(value, 0));
}

const UNITS = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/** Halves go to the even neighbour, as in Python; these two are all that a double can hold. */
function settled(value: number, digits: number): number {
  const half = digits ? value * 4 : value * 2;
  if (!Number.isInteger(half) || half % 2 === 0) return value;
  if (digits) return Math.floor(value) + (value - Math.floor(value) < 0.5 ? 0.2 : 0.8);
  return Math.floor(value) + (Math.floor(value) % 2 ? 1 : 0);
}

// Made once: each call of toLocaleString makes one of its own.
const WRITERS = [0, 1].map((digits) => new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }));

function fixed(value: number, digits: number): string {
  return WRITERS[digits].format(settled(value, digits));
}

export function bytesText(size: number): string {
  if (!Number.isFinite(size)) return "?";
  if (size < 0) return "-" + bytesText(-size);
  if (size < 1023.5) return `${fixed(size, 0)} B`;
  let last = "";
  for (const unit of UNITS) {
    size /= 1024;
    last = unit;
    if (size < 1023.5) break;
  }
  return size < 99.95 ? `${fixed(size, 1)} ${last}` : `${fixed(size, 0)} ${last}`;
}

export function numberText(value: number): string {
  if (!Number.isFinite(value)) return "?";
  if (Math.abs(value) >= 99.95) return fixed(value, 0);
  return settled(value, 1).toFixed(1).replace(/\.0$/, "");
}

export function countText(count: number): string {
  return fixed(whole(count), 0);
}

export function plural(count: number, one: string, many = one + "s"): string {
  return `${countText(count)} ${whole(count) === 1 ? one : many}`;
}

export function amountText(value: number, unit: string): string {
  return unit === "bytes" ? bytesText(value) : numberText(value);
}

export function signedAmount(value: number, unit: string): string {
  if (!whole(value)) return "";
  return (value > 0 ? "+" : "-") + amountText(Math.abs(value), unit);
}

export function percentText(part: number, all: number): string {
  const share = all > 0 ? part / all : 0;
  const percent = 100 * share;
  if (!(percent > 0)) return "0 %";
  if (percent < 1) return "<1 %";
  return `${share < 1 ? Math.min(Math.floor(percent), 99) : whole(percent)} %`;
}

const PER: Record<string, [number, string][]> = {
  bytes: [[1, "s"], [3600, "h"], [86400, "day"]],
  count: [[1, "s"], [60, "min"], [3600, "h"], [86400, "day"]],
};

export function rateText(rate: number, unit = "bytes"): string {
  if (!Number.isFinite(rate)) return "?";
  const units = PER[unit === "bytes" ? "bytes" : "count"];
  const size = Math.abs(rate);
  const [seconds, name] = units.find(([s]) => size * s >= 1) ?? units[size ? units.length - 1 : 0];
  return `${rate < 0 ? "-" : ""}${amountText(size * seconds, unit)}/${name}`;
}

export function secondsText(seconds: number): string {
  seconds = Math.max(seconds, 0);
  if (seconds < 0.00995) return settled(seconds * 1000, 1).toFixed(1).replace(/\.0$/, "") + " ms";
  if (seconds < 0.9995) return `${settled(seconds * 1000, 0).toFixed(0)} ms`;
  if (seconds < 99.95) return settled(seconds, 1).toFixed(1).replace(/\.0$/, "") + " s";
  const all = whole(seconds / 60);
  if (all < 120) return `${all} min`;
  const hours = Math.floor(all / 60);
  const minutes = all % 60;
  if (hours < 10) return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
  if (hours < 48) return `${whole(seconds / 3600)} h`;
  const days = Math.floor(hours / 24);
  const rest = hours % 24;
  return rest ? `${countText(days)} days ${rest} h` : `${countText(days)} days`;
}

export function durationText(nanoseconds: number): string {
  return secondsText(nanoseconds / 1e9);
}
