// What the numbers are called, how they are written, and which end of them is the bad one.

const METRICS = [
  { key: "success_score", name: "Success score", short: "Success", unit: "nats", digits: 2, worst: "low",
    says: "mean log P(True) of the last three prefixes" },
  { key: "final_progress", name: "Final progress", short: "Final", digits: 2, worst: "low",
    says: "mean progress of the last three prefixes" },
  { key: "voc", name: "VOC", short: "VOC", digits: 2, worst: "low",
    says: "value-order correlation: how well log P(True) follows the order of time, −1 to 1" },
  { key: "static_voc", name: "Static VOC", short: "Static", digits: 2, worst: "high",
    says: "VOC of the first frame repeated: what time alone does" },
  { key: "max_progress", name: "Highest progress", short: "Highest", digits: 2, worst: "low",
    says: "progress at its best moment" },
  { key: "seconds_to_90", name: "Time to 0.9", short: "To 0.9", unit: "s", digits: 1, worst: "high",
    missing: "never", says: "when progress first reaches 0.9" },
  { key: "longest_stall", name: "Longest stall", short: "Stall", unit: "s", digits: 1, worst: "high",
    says: "the longest time without getting beyond where it has been" },
  { key: "regress", name: "Largest fall", short: "Fall", digits: 2, worst: "high",
    says: "the largest fall of progress below an earlier maximum" },
  { key: "negative_share", name: "Losing", short: "Losing", digits: 2, worst: "high",
    says: "share of frames with a negative advantage" },
  { key: "log_odds", name: "Log-odds", short: "Log-odds", unit: "nats", digits: 2, worst: "low",
    says: "log P(True) − log P(False) at the end" },
  { key: "seconds", name: "Length", short: "Length", unit: "s", digits: 1, worst: "high",
    says: "length of the episode" },
];

const RULES = {
  min_final_progress: (limit) => `final progress at least ${number(limit, 2)}`,
  min_success: (limit) => `success score at least ${number(limit, 2)} nats`,
  min_voc: (limit) => `VOC at least ${number(limit, 2)}`,
  keep_top: (limit) => `the best ${Math.round(100 * limit)} % of each task by success score`,
  max_stall: (limit) => `no stall longer than ${number(limit, 1)} s`,
  max_regress: (limit) => `no fall of progress by more than ${number(limit, 2)}`,
  outliers: (limit) => `no outliers of length or success score (robust z of ${number(limit, 1)})`,
};

function number(value, digits) {
  if (value === null || value === undefined) return "–";
  const text = value.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

function metricText(metric, value, { unit = false } = {}) {
  if (value === null || value === undefined) return metric.missing ?? "–";
  return number(value, metric.digits) + (unit && metric.unit ? ` ${metric.unit}` : "");
}

function percent(share) {
  return share === null ? "–" : `${Math.round(100 * share)} %`.replace("-", "−");
}

function plural(count, one) {
  return `${count} ${one}${count === 1 ? "" : "s"}`;
}

function outcome(success) {
  return success === null ? "unknown" : success ? "succeeded" : "failed";
}
