// How numbers are written. What they are called comes with the data: metrics and rule texts.

const metrics = data.metrics;
const metricOf = Object.fromEntries(metrics.map((metric) => [metric.key, metric]));

function number(value, digits) {
  if (value === null || value === undefined) return "–";
  const text = value.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

function metricText(metric, value, { unit = false } = {}) {
  if (value === null || value === undefined) return metric.undefined ?? "–";
  return number(value, metric.digits) + (unit && metric.unit ? ` ${metric.unit}` : "");
}

function percent(share) {
  return share === null ? "–" : `${Math.round(100 * share)} %`.replace("-", "−");
}

function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function shorten(text, most) {
  return text.length > most ? `${text.slice(0, Math.max(0, Math.floor(most) - 1))}…` : text;
}

function outcome(success) {
  return success === null ? "unknown" : success ? "succeeded" : "failed";
}
