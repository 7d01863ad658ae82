"""`task=disentanglement`: how far single dimensions of a code stand for single known factors.

K factors, Z dimensions, N codes, as numpy arrays. A factor is what an example was made from
(`Split.known`): whole numbers are classes without an order, broken numbers have one.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import entropy
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import balanced_accuracy_score, mutual_info_score, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from vae_cli.analysis.export import Report, measured
from vae_cli.analysis.settings import DisentanglementTask
from vae_cli.analysis.trained import TrainedRun
from vae_cli.console import UserError
from vae_cli.data.dataset import generator
from vae_cli.training.evaluation import ACTIVE_VARIANCE

Array = NDArray[Any]
VOTES, GROUP = 5000, 64  # of the FactorVAE score: votes, and codes that are compared for a vote
TREES, LEAF = 100, 5  # of a random forest, and codes in a leaf


class Known(NamedTuple):
    """Codes, and the factors of the examples that they are codes of."""

    codes: Array  # [N, Z]
    factors: Mapping[str, Array]  # name -> [N]


def binned(values: Array, bins: int) -> Array:
    """Number values [N] from 0: each its own if there are at most `bins`, else equal widths."""
    distinct, index = np.unique(values, return_inverse=True)
    if len(distinct) <= bins:
        return index
    edges = np.linspace(distinct[0], distinct[-1], bins + 1)[1:-1]
    return np.digitize(values, edges)


def gap(table: Array) -> float:
    """Average over factors the best dimension's number minus the second's, or 0. [K, Z]"""
    best = np.sort(np.pad(table, ((0, 0), (1, 0))), axis=1)
    return float((best[:, -1] - best[:, -2]).mean())


def shared_information(known: Known, bins: int) -> Array:
    """Estimate I(z_j; v_k) / H(v_k) by counting in bins. -> [K, Z], from 0 to 1.

    Its `gap` is the mutual information gap MIG (Chen et al. 2018), with bins of the posterior means
    as Locatello et al. 2019 compute it.
    """
    codes = [binned(z, bins) for z in known.codes.T]
    factors = [binned(values, bins) for values in known.factors.values()]
    table = np.array([[mutual_info_score(factor, z) for z in codes] for factor in factors])
    shares: Array = table / [[mutual_info_score(factor, factor)] for factor in factors]
    return shares


def separate_scores(train: Known, test: Known) -> Array:
    """Predict each factor from each dimension alone. -> [K, Z]; its `gap` is SAP.

    Ordered factors: the squared correlation on the test codes. Classes: the balanced accuracy there
    of a linear support vector machine (Kumar et al. 2018), which is 1 / classes by chance. A
    constant dimension has 0.
    """
    table = np.zeros((len(test.factors), test.codes.shape[1]))
    for k, (name, values) in enumerate(test.factors.items()):
        for j in np.flatnonzero(test.codes.std(0) > 0):
            before, after = train.codes[:, [j]], test.codes[:, [j]]
            if values.dtype.kind == "f":
                table[k, j] = np.corrcoef(values, after[:, 0])[0, 1] ** 2
                continue
            machine = make_pipeline(StandardScaler(), LinearSVC(class_weight="balanced"))
            machine.fit(before, train.factors[name])
            table[k, j] = balanced_accuracy_score(values, machine.predict(after))
    return table


def importances(train: Known, test: Known) -> tuple[Array, Array]:
    """Predict each factor from all dimensions by a random forest, fitted on the training codes.

    -> the importance of each dimension for each factor, rows that sum to 1 [K, Z]; the share of the
    factor's variance on the test codes that is predicted [K], of a class that of its indicators.
    """
    rows, shares = [], []
    for name, values in train.factors.items():
        wanted, truth = values, test.factors[name]
        if values.dtype.kind != "f":  # squared errors of indicators are Gini's impurity
            classes = np.unique(values)
            wanted, truth = (v[:, None] == classes for v in (wanted, truth))
        forest = RandomForestRegressor(TREES, min_samples_leaf=LEAF, random_state=0, n_jobs=-1)
        forest.fit(train.codes, wanted).set_params(n_jobs=1)  # threads would add in any order
        found = forest.predict(test.codes)
        shares.append(r2_score(truth, found, multioutput="variance_weighted"))
        rows.append(forest.feature_importances_)
    return np.array(rows), np.array(shares)


def dci(importance: Array) -> tuple[float, float]:
    """Compute disentanglement and completeness (Eastwood & Williams 2018) of importances [K, Z].

    Both are 1 minus the entropy of shares, in units of its largest. A dimension is disentangled if
    it matters for one factor; dimensions count by how much they matter at all. A factor is complete
    if one dimension matters for it.
    """
    count, dims = importance.shape
    importance = importance + 1e-12  # what matters for nothing: equal shares
    each, weight = 1 - entropy(importance) / np.log(count), importance.sum(0)
    complete = 1 - entropy(importance, axis=1) / np.log(max(2, dims))
    return float(each @ weight / weight.sum()), float(complete.mean())


def factor_vae_score(known: Known, bins: int, source: np.random.Generator) -> float:
    """Tell which factor is fixed from the dimension that varies least (Kim & Mnih 2018).

    A vote: GROUP codes with an equal value of one factor, both drawn at random; the dimension with
    the smallest variance, each in units of its variance over all codes. A dimension stands for
    the factor that has most of its first VOTES votes. -> the share of right ones of other VOTES.
    """
    codes = known.codes / known.codes.std(0)
    groups = []
    for values in known.factors.values():
        index = binned(values, bins)
        order = np.argsort(index, kind="stable")
        groups.append(np.split(order, np.flatnonzero(np.diff(index[order])) + 1))
    tables = np.zeros((2, codes.shape[1], len(groups)))
    for table in tables:
        for _ in range(VOTES):
            k = source.integers(len(groups))
            members = groups[k][source.integers(len(groups[k]))]
            variance = codes[source.choice(members, GROUP)].var(0)
            table[variance.argmin(), k] += 1
    right = tables[1][np.arange(codes.shape[1]), tables[0].argmax(1)]
    return float(right.sum() / VOTES)


def run(task: DisentanglementTask, run: TrainedRun, out: Path) -> Report:
    """Score the posterior means of the data against its factors: disentanglement.json."""
    seed, chosen, factors = run.config.seed, [], []
    for split in (run.data().split("train"), run.data().split("test")):
        source = generator(torch.device("cpu"), seed, "disentanglement")
        chosen.append(torch.randperm(len(split), generator=source)[: task.num_codes])
        known = {name: v.cpu()[chosen[-1]].numpy() for name, v in split.known.items()}
        factors.append({name: v for name, v in known.items() if len(np.unique(v)) > 1})
    names = [name for name in factors[1] if name in factors[0]]
    if len(names) < 2:
        line = f"dataset={run.config.dataset.name} has {len(names)} known factors that vary"
        raise UserError(f"task=disentanglement: {line}, and it needs two: use dataset=shapes")
    train, test = (
        Known(run.embed(split).mean[some].double().numpy(), {name: part[name] for name in names})
        for split, some, part in zip(("train", "test"), chosen, factors, strict=True)
    )
    least = ACTIVE_VARIANCE if run.config.is_generative else 0
    active = np.flatnonzero(train.codes.var(0) > least)
    score, draws = None, np.random.default_rng(seed)
    if len(active):
        score = factor_vae_score(Known(train.codes[:, active], train.factors), task.bins, draws)
    information = shared_information(test, task.bins)
    with warnings.catch_warnings(action="ignore"):  # of machines that stop at 1,000 iterations
        separate = separate_scores(train, test)
    importance, predicted = importances(train, test)
    disentanglement, completeness = dci(importance)
    result = {
        "mig": gap(information),
        "sap": gap(separate),
        "dci_disentanglement": disentanglement,
        "dci_completeness": completeness,
        "dci_informativeness": float(predicted.mean()),
        "factor_vae_score": score,
        "factor_vae_chance": 1 / len(names),
        "informativeness": dict(zip(names, predicted.tolist(), strict=True)),
        # a row for each factor, a column for each dimension
        "factors": names,
        "information": information.tolist(),
        "separate_scores": separate.tolist(),
        "importance": importance.tolist(),
        "active_dimensions": active.tolist(),
        "bins": task.bins,
        "train_codes": len(train.codes),
        "test_codes": len(test.codes),
    }
    cut = [k for k in names if len(np.unique(test.factors[k])) > task.bins]
    notes = {
        f"known factors: {', '.join(names)}": True,
        f"cut into {task.bins} bins: the codes, {', '.join(cut)}".rstrip(", "): True,
        "no FactorVAE score: no dimension is active": score is None,
    }
    return measured(run, out / "disentanglement.json", result, notes)
