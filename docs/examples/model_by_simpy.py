#!/usr/bin/env python3
"""The queueing model of loadtest/src/model.rs once more, by SimPy: a second opinion on its figures.

pip install simpy; python3 docs/examples/model_by_simpy.py [SEEDS]

It shares no code with model.rs. Users and queries are SimPy processes; a pool is a PriorityResource whose newest request comes first.
"""
import math
import random
import sys

import simpy

REPLICAS, POOL, MAX_WAITING = 8, 100, 5000
BASE_S, SLOPE_S, SPREAD = 0.074, 0.0002, 0.3
CHECKOUT_TIMEOUT_S, TIMEOUT_S, INTERVAL_S, REFUSAL_S = 2.9, 3.0, 1.0, 0.003
WARM_UP_S, MEASURE_S = 15, 60
# Users: mean ms, error %, answered/s and good/s by model.rs, averaged over the seeds 1 to 3 (`fit::predict`).
MODEL_RS = {
    1000: (93, 0.00, 1000, 1000),
    2000: (124, 0.00, 2000, 2000),
    3000: (185, 0.00, 3000, 3000),
    4000: (390, 5.39, 3613, 3419),
    5000: (604, 13.56, 3955, 3418),
}


class Step:
    def __init__(self, users, seed):
        self.env, self.random = simpy.Environment(), random.Random(seed)
        self.pools = [simpy.PriorityResource(self.env, POOL) for _ in range(REPLICAS)]
        self.sent = self.in_flight = 0
        self.latencies, self.failed = [], 0
        for _ in range(users):
            self.env.process(self.user())
        self.env.run(until=WARM_UP_S + MEASURE_S)

    def user(self):
        planned = self.random.random() * INTERVAL_S
        yield self.env.timeout(planned)
        while True:
            good = yield from self.request()
            latency = self.env.now - planned
            if self.env.now >= WARM_UP_S:
                self.latencies.append(latency)
                self.failed += not good
            # Seconds that passed while waiting are skipped.
            planned += INTERVAL_S * max(1, math.ceil(latency / INTERVAL_S - 1e-9))
            yield self.env.timeout(max(0.0, planned - self.env.now))

    def request(self):
        self.sent += 1
        pool, begun = self.pools[self.sent % REPLICAS], self.env.now
        if pool.count == POOL and len(pool.queue) >= MAX_WAITING:
            yield self.env.timeout(REFUSAL_S)
            return False
        connection = pool.request(priority=-self.sent)
        if not connection.triggered:
            yield connection | self.env.timeout(CHECKOUT_TIMEOUT_S)
            if not connection.triggered:
                connection.cancel()
                return False
        query = self.env.process(self.query(pool, connection))
        yield query | self.env.timeout(max(0.0, begun + TIMEOUT_S - self.env.now))
        return query.processed

    def query(self, pool, connection):
        """It goes on when its user gives up."""
        self.in_flight += 1
        mean = BASE_S + SLOPE_S * self.in_flight
        yield self.env.timeout(mean * self.random.lognormvariate(-SPREAD * SPREAD / 2, SPREAD))
        self.in_flight -= 1
        pool.release(connection)

    def figures(self):
        answered = len(self.latencies)
        return (
            1000 * sum(self.latencies) / answered,
            100 * self.failed / answered,
            answered / MEASURE_S,
            (answered - self.failed) / MEASURE_S,
        )


if __name__ == "__main__":
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    print("users    mean ms    error %  answered/s     good/s    by SimPy; in brackets the difference of model.rs")
    for users, ours in MODEL_RS.items():
        steps = [Step(users, seed).figures() for seed in range(1, seeds + 1)]
        mean = [sum(figure) / seeds for figure in zip(*steps)]
        cells = [f"{100 * (ours[n] / mean[n] - 1):+.1f} %" if n != 1 else f"{ours[1] - mean[1]:+.2f}" for n in range(4)]
        print(f"{users}  " + "  ".join(f"{value:9.2f} [{cell}]" for value, cell in zip(mean, cells)), flush=True)
