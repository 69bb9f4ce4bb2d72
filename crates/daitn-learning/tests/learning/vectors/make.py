"""Makes the vectors that the Rust tests compare with, by numpy, scipy and scikit-learn, in 64-bit floats throughout.

    pip install numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1
    python make.py

Written from the papers' equations, not from the Rust sources.
"""

import json
from pathlib import Path

import numpy as np
from scipy import stats
from sklearn import metrics

HERE = Path(__file__).parent
N_PARAMETERS, N_SITES, N_ROUNDS = 6, 4, 5


def f32(values):
    return np.asarray(values, dtype=np.float32).astype(np.float64)


def strategies():
    rng = np.random.default_rng(20261103)
    start = f32(rng.normal(size=N_PARAMETERS))
    n_examples = [120, 31, 7, 402]
    # What each site returns in each round does not depend on the server, so that each strategy is seen alone.
    y = f32(rng.normal(scale=0.7, size=(N_ROUNDS, N_SITES, N_PARAMETERS)))
    delta_y = f32(rng.normal(scale=0.3, size=(N_ROUNDS, N_SITES, N_PARAMETERS)))
    delta_c = f32(rng.normal(scale=0.2, size=(N_ROUNDS, N_SITES, N_PARAMETERS)))
    settings = {
        "fed-avg-m": {"beta": 0.9, "eta": 1.0},
        "fed-adagrad": {"eta": 0.1, "tau": 1e-3},
        "fed-adam": {"eta": 0.03, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3},
        "fed-yogi": {"eta": 0.03, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3},
    }
    weights = np.array(n_examples, dtype=float)
    cases = []
    for kind in ["fed-avg", "fed-prox", *settings]:
        s = settings.get(kind, {})
        x = start.copy()
        m = np.zeros(N_PARAMETERS)
        v = np.full(N_PARAMETERS, s.get("tau", 0.0) ** 2)
        rounds = []
        for r in range(N_ROUNDS):
            delta = np.average(y[r] - x, axis=0, weights=weights)
            if kind in ("fed-avg", "fed-prox"):
                x = np.average(y[r], axis=0, weights=weights)
            elif kind == "fed-avg-m":
                m = s["beta"] * m + delta
                x = x + s["eta"] * m
            else:
                b1 = s.get("beta1", 0.0)
                b2 = s.get("beta2")
                m = b1 * m + (1 - b1) * delta
                if kind == "fed-adagrad":
                    v = v + delta**2
                elif kind == "fed-adam":
                    v = b2 * v + (1 - b2) * delta**2
                else:
                    v = v - (1 - b2) * delta**2 * np.sign(v - delta**2)
                x = x + s["eta"] * m / (np.sqrt(v) + s["tau"])
            rounds.append(x.tolist())
        strategy = {"kind": kind, **({"mu": 0.1} if kind == "fed-prox" else s)}
        cases.append({"strategy": strategy, "globals": rounds})
    # SCAFFOLD: the last site never answers, and still counts in N.
    x, c, scaffold = start.copy(), np.zeros(N_PARAMETERS), []
    for r in range(N_ROUNDS):
        x = x + delta_y[r, :-1].mean(axis=0)
        c = c + delta_c[r, :-1].sum(axis=0) / N_SITES
        scaffold.append({"global": x.tolist(), "control": c.tolist()})
    return {
        "start": start.tolist(),
        "n_examples": n_examples,
        "weights": y.tolist(),
        "differences": delta_y.tolist(),
        "control_changes": delta_c.tolist(),
        "cases": cases,
        "scaffold": scaffold,
    }


def evaluations():
    rng = np.random.default_rng(7)
    n, n_classes = 60, 5
    # Class 4 neither occurs nor is predicted; class 3 occurs and is never predicted.
    labels = rng.integers(0, 4, size=n)
    logits = np.round(rng.normal(size=(n, n_classes)) * 2, 3)
    logits[np.arange(n), labels] += 1.5
    logits[:, 3:] -= 40
    logits[0] += 3e4  # far beyond what exp() holds
    logits = f32(logits)
    predicted = logits.argmax(axis=1)
    log_p = logits - logits.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    p = np.exp(log_p[1:])
    loss = -log_p[np.arange(n), labels].mean()
    # scikit-learn's own, on rows that it can hold, as a check of the line above.
    clear = labels[1:] != 3
    mine = -log_p[1:][np.arange(n - 1), labels[1:]][clear].mean()
    assert np.isclose(metrics.log_loss(labels[1:][clear], p[clear], labels=range(n_classes)), mine, rtol=1e-9)
    classification = {
        "n_classes": n_classes,
        "logits": logits.ravel().tolist(),
        "labels": labels.tolist(),
        "loss": loss,
        "accuracy": metrics.accuracy_score(labels, predicted),
        "macro_f1": metrics.f1_score(labels, predicted, average="macro"),
        "confusion": metrics.confusion_matrix(labels, predicted, labels=range(n_classes)).tolist(),
    }
    targets = f32(1e4 + rng.normal(size=40))
    predictions = f32(targets + rng.normal(scale=0.5, size=40))
    regression = {
        "targets": targets.tolist(),
        "predictions": predictions.tolist(),
        "mse": metrics.mean_squared_error(targets, predictions),
        "rmse": metrics.root_mean_squared_error(targets, predictions),
        "mae": metrics.mean_absolute_error(targets, predictions),
        "r2": metrics.r2_score(targets, predictions),
    }
    return {"classification": classification, "regression": regression}


def quantiles():
    levels = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
    gamma = [
        {"shape": a, "quantiles": [[q, float(stats.gamma(a).ppf(q))] for q in levels]} for a in (0.1, 0.5, 1.0, 7.5)
    ]
    return {"gamma": gamma, "normal": [[q, float(stats.norm.ppf(q))] for q in levels]}


for name, vectors in {"strategies": strategies(), "evaluations": evaluations(), "quantiles": quantiles()}.items():
    (HERE / f"{name}.json").write_text(json.dumps(vectors) + "\n")
