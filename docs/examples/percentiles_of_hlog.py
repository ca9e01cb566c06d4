#!/usr/bin/env python3
"""Compares the percentiles of report.json with those that HdrHistogram's Python reader finds in the .hlog files beside it.

pip install hdrhistogram; python3 docs/examples/percentiles_of_hlog.py REPORT_DIR
"""
import json
import pathlib
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

KEYS = {"p50_ms": 50, "p90_ms": 90, "p99_ms": 99, "p999_ms": 99.9}
# report.json is rounded to as many digits; the histograms have three.
TOLERANCE = 0.001

directory = pathlib.Path(sys.argv[1])
report = json.loads((directory / "report.json").read_text())
worst, compared = 0.0, 0
for step in report["steps"]:
    if not step.get("hdr_log"):
        continue
    histogram = HdrHistogram(1, 3_600_000_000, 3)
    log = HistogramLogReader(str(directory / step["hdr_log"]), histogram)
    while (interval := log.get_next_interval_histogram()) is not None:
        # Of all requests; the others are of the good ones, and skip-corrected.
        if interval.get_tag() == "all":
            histogram.add(interval)
    cells = []
    for key, percentile in KEYS.items():
        theirs = histogram.get_value_at_percentile(percentile) / 1000
        difference = abs(step[key] - theirs) / max(theirs, 0.001)
        worst, compared = max(worst, difference), compared + 1
        cells.append(f"{key} {step[key]:.3f}/{theirs:.3f}")
    print(f"{step['profile']} {step['users']}: {histogram.get_total_count()} values; ours/theirs: {', '.join(cells)}")
print(f"{compared} percentiles, largest difference {100 * worst:.3f} %")
sys.exit(0 if compared and worst <= TOLERANCE else 1)
