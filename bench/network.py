#!/usr/bin/env python3
"""Measures a whole network of real processes on this machine and prints a table.

    cargo build --release
    python3 bench/network.py [--binary PATH] [--nodes 10] [--idle-nodes 50] [--rounds 50]

Starts a control center and nodes with the command line, as a person would, on loopback and in a fresh directory; runs the
same job twice; reads the job's own record for times and /proc for CPU and memory. Needs Linux and Python 3.11, nothing
else. What each figure means stands beside it in bench/README.md.
"""

import argparse
import csv
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "digits" / "digits.csv"
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Network:
    def __init__(self, binary, folder):
        self.binary, self.folder, self.processes = str(binary), folder, {}
        self.env = {**os.environ, "HOME": str(folder / "home"), "XDG_CONFIG_HOME": str(folder / "home" / "config")}

    def run(self, *words, parse=True):
        done = subprocess.run([self.binary, *words, "-o", "json"], env=self.env, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            sys.exit(f"daitn {' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout)["data"] if parse else done.stdout

    def start(self, name, *words):
        log = open(self.folder / f"{name}.log", "w")
        self.processes[name] = subprocess.Popen([self.binary, *words], env=self.env, stdout=log, stderr=log)

    def stop(self):
        for process in self.processes.values():
            process.send_signal(signal.SIGINT)
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()

    def join(self, name, organisation):
        token = self.run("token", "create", "--organisation", organisation)["text"]
        file = self.folder / f"{name}.token"
        file.write_text(token)
        self.run("node", "join", f"@{file}", "--dir", str(self.folder / name), parse=False)
        return str(self.folder / name)

    def cpu_s(self, name):
        fields = pathlib.Path(f"/proc/{self.processes[name].pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S

    def rss_mib(self, name):
        for line in pathlib.Path(f"/proc/{self.processes[name].pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0


def deal(n_sites, folder):
    header, *rows = list(csv.reader(open(DIGITS)))
    # The file is ordered by writer: dealt as it stands, the hold-out would hold writers whom no site has seen.
    random.Random(1).shuffle(rows)
    test, train = rows[-360:], rows[:-360]
    parts = [(f"site-{i}", train[i::n_sites]) for i in range(n_sites)] + [("hold-out", test)]
    for name, part in parts:
        with open(folder / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([header, *part])


def build(network, n_sites):
    folder = network.folder
    network.start("center", "up", "--dir", str(folder / "center"), "--listen", "127.0.0.1:0", "--fabric-listen", "127.0.0.1:0")
    network.run("status", "--wait", "30s", parse=False)
    deal(n_sites, folder)
    for i in range(n_sites):
        name = f"site-{i}"
        node = network.join(name, f"organisation-{i}")
        file = str(folder / f"{name}.toml")
        network.run("data", "init", str(folder / f"{name}.csv"), "--file", file, "--name", "digits", "--target", "label",
                    "--jurisdiction", "DE", "--creator", name, "--license", "CC-BY-4.0", parse=False)
        network.run("data", "publish", file, "--node-dir", node, parse=False)
        network.start(name, "node", "run", "--dir", node)
    node = network.join("works", "works")
    place = ["--jurisdiction", "DE", "--node-dir", node]
    network.run("node", "attach", "aggregator", "combiner", *place, parse=False)
    network.run("node", "attach", "verifier", "judge", "--path", str(folder / "hold-out.csv"), "--target", "label", *place, parse=False)
    network.run("node", "attach", "model-host", "host", "--memory", "1GiB", *place, parse=False)
    network.start("works", "node", "run", "--dir", node)
    network.run("status", "--wait", "60s", "--nodes", str(n_sites + 1), "--descriptors", str(n_sites + 3), parse=False)


def job(network, rounds):
    file = str(network.folder / "request.toml")
    if not os.path.exists(file):
        network.run("job", "init", "digits", "--file", file, "--target", "label", "--organisation", "works", "--jurisdiction", "DE",
                    "--purpose", "research", "--architecture", "mlp:32", "--scale", "0.0625", "--rounds", str(rounds),
                    "--strategy", "fed-avg", "--kind", "rounds", "--reach", "0.85", parse=False)
    sites = [name for name in network.processes if name.startswith("site-")]
    before = {name: network.cpu_s(name) for name in sites}
    subprocess.run([network.binary, "job", "run", file, "-q"], env=network.env, check=True, capture_output=True, timeout=600)
    used = [network.cpu_s(name) - before[name] for name in sites]
    newest = network.run("job", "list")
    newest = max(newest, key=lambda line: line["accepted_at"])["id"]
    return network.run("job", "get", newest), used


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", default=os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target")) + "/release/daitn")
    arguments.add_argument("--nodes", type=int, default=10)
    arguments.add_argument("--idle-nodes", type=int, default=50)
    arguments.add_argument("--rounds", type=int, default=50)
    options = arguments.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="daitn-bench-"))
    network = Network(options.binary, folder)
    rows = []
    try:
        build(network, options.nodes)
        rows.append(("idle node with a dataset, resident MiB", max(network.rss_mib(f"site-{i}") for i in range(options.nodes)), "40"))
        first, used = job(network, options.rounds)
        second, _ = job(network, options.rounds)
        overheads = [cycle["cycle_ms"] - cycle["train_ms"] for cycle in first["cycles"]]
        rows.append((f"round overhead, {options.nodes} nodes, ms, median", statistics.median(overheads), "50"))
        rows.append(("round overhead, ms, 95th percentile", percentile(overheads, 0.95), ""))
        rows.append(("CPU for a client and round, ms, mean", 1000 * statistics.mean(used) / len(first["cycles"]), "50"))
        accuracy = [dict(map(tuple, report["evaluation"]["metrics"]))["accuracy"] for _, report in first["reports"]]
        rows.append(("accuracy on the hold-out", min(accuracy), ""))
        same = first["cycles"][-1]["global"] == second["cycles"][-1]["global"]
        rows.append(("two runs of one job give the same bits (1 yes)", float(same), "1"))
        rows.append(("predicted over actual time of the job", first["plan"]["prediction"]["ms"] / max(1, sum(first["actual"][k] for k in ("preparing_ms", "training_ms", "verifying_ms", "deploying_ms"))), ""))
        for i in range(options.nodes + 1, options.idle_nodes):
            node = network.join(f"idle-{i}", "crowd")
            network.start(f"idle-{i}", "node", "run", "--dir", node)
        network.run("status", "--wait", "120s", "--nodes", str(options.idle_nodes), parse=False)
        before, begun = {name: network.cpu_s(name) for name in network.processes}, time.monotonic()
        time.sleep(10)  # the length of the measurement
        seconds = time.monotonic() - begun
        idle = [100 * (network.cpu_s(name) - before[name]) / seconds for name in network.processes if name != "center"]
        rows.append((f"control center and gateway with {options.idle_nodes} nodes, resident MiB", network.rss_mib("center"), "150"))
        rows.append(("an idle node's CPU, percent of a core, mean", statistics.mean(idle), ""))
    finally:
        network.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print("| what | measured | bar |\n|---|---|---|")
    for what, value, bar in rows:
        print(f"| {what} | {value:.2f} | {bar} |")


main()
