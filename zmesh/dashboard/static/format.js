// Numbers and times for people.

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; count >= 999.5 && unit < units.length - 1; unit++) count /= 1000;
  return `${unit && count < 9.95 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

export function rate(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  return value < 0.05 ? "<0.1" : value < 9.95 ? value.toFixed(1) : String(Math.round(value));
}

export function milliseconds(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const value = seconds * 1000;
  return `${value < 0.995 ? value.toFixed(2) : value < 9.95 ? value.toFixed(1) : Math.round(value)} ms`;
}

export function percent(share) {
  return share === null || share === undefined ? "–" : `${share < 0.0995 ? (100 * share).toFixed(1) : Math.round(100 * share)} %`;
}

const pad = number => String(number).padStart(2, "0");

export function clock(time) {
  const then = new Date(time * 1000);
  return `${pad(then.getHours())}:${pad(then.getMinutes())}:${pad(then.getSeconds())}`;
}

export function moment(time) {
  const then = new Date(time * 1000);
  const day = `${then.getFullYear()}-${pad(then.getMonth() + 1)}-${pad(then.getDate())}`;
  return `${day} ${clock(time)}`;
}

export function span(seconds) {
  seconds = Math.max(0, Math.round(seconds));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

export const since = time => span(Date.now() / 1000 - time);
