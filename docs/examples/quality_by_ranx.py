#!/usr/bin/env python3
"""Compares the figures of `data quality` with those that ranx and pytrec_eval find in its rankings.

pip install ranx pytrec_eval-terrier
./testbed data quality --trec trec --json FILE > trec/quality.json; python3 docs/examples/quality_by_ranx.py trec
"""
import json
import pathlib
import sys

import pytrec_eval
import ranx

TOLERANCE = 1e-9

directory = pathlib.Path(sys.argv[1])
ours = json.loads((directory / "quality.json").read_text())["model"]
qrels, run = {}, {}
for line in (directory / "qrels").read_text().splitlines():
    user, _, item, relevance = line.split()
    qrels.setdefault(user, {})[item] = int(relevance)
for line in (directory / "run").read_text().splitlines():
    user, _, item, _, score, _ = line.split()
    run.setdefault(user, {})[item] = float(score)
for user in qrels:
    # A user without a list counts with 0.
    run.setdefault(user, {"none": 0.0})

by_ranx = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), ["ndcg@10", "hit_rate@10", "recall@10"])
by_ranx = {"ndcg": by_ranx["ndcg@10"], "hit_rate": by_ranx["hit_rate@10"], "recall": by_ranx["recall@10"]}
names = {"ndcg": "ndcg_cut_10", "hit_rate": "success_10", "recall": "recall_10"}
evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "success.10", "recall.10"})
of_users = evaluator.evaluate(run).values()
by_trec = {ours_: sum(user[theirs] for user in of_users) / len(qrels) for ours_, theirs in names.items()}

worst = 0.0
for name in names:
    print(f"{name}: ours {ours[name]:.12f}, ranx {by_ranx[name]:.12f}, pytrec_eval {by_trec[name]:.12f}")
    worst = max(worst, abs(ours[name] - by_ranx[name]), abs(ours[name] - by_trec[name]))
print(f"{len(qrels)} users, largest difference {worst:.1e}")
sys.exit(0 if worst <= TOLERANCE else 1)
