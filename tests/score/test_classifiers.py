"""Classifiers: they learn, repeat themselves, survive saving, and read the crop alone."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import ArtifactError
from gristmill.score import hashed_ngrams
from gristmill.score.classifiers import fit_classifier, load_classifier

KINDS = ["hashed_ngrams", "fasttext"]
GOOD = [
    "the",
    "theorem",
    "follows",
    "because",
    "each",
    "number",
    "has",
    "one",
    "successor",
    "and",
    "the",
    "proof",
    "is",
    "by",
    "induction",
    "on",
]
BAD = [
    "buy",
    "cheap",
    "shoes",
    "now",
    "click",
    "here",
    "for",
    "the",
    "best",
    "price",
    "free",
    "shipping",
    "and",
    "win",
    "big",
    "on",
]


def examples(count, seed):
    """Texts whose label 0-5 is the share of words from GOOD."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, count)
    texts = []
    for label in labels:
        good = rng.random(60) < label / 5
        texts.append(" ".join(str(rng.choice(GOOD if g else BAD)) for g in good))
    return texts, labels


TEXTS, LABELS = examples(150, 0)


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return fit_classifier(request.param, TEXTS, LABELS, max_chars=2000, seed=1)


def test_scores_follow_the_labels_of_unseen_texts(model):
    texts, labels = examples(100, 1)
    scores = model.score(texts)
    assert scores.dtype == np.float32
    assert np.corrcoef(scores, labels)[0, 1] > 0.8
    assert abs(float(scores.mean()) - labels.mean()) < 0.5


def test_a_saved_model_scores_the_same(model, tmp_path):
    model.save(tmp_path / "model.npz")
    again = load_classifier(tmp_path / "model.npz")
    assert np.array_equal(again.score(TEXTS[:20]), model.score(TEXTS[:20]))
    assert again.max_chars == 2000


@pytest.mark.parametrize("kind", KINDS)
def test_training_again_gives_the_same_scores(kind):
    first, second = (fit_classifier(kind, TEXTS, LABELS, max_chars=2000, seed=1) for _ in range(2))
    assert np.array_equal(first.score(TEXTS), second.score(TEXTS))


@pytest.mark.parametrize("kind", KINDS)
def test_text_beyond_the_crop_has_no_influence(kind):
    small = fit_classifier(kind, TEXTS, LABELS, max_chars=100, seed=1)
    texts = ["x " * 50 + tail for tail in ("", "theorem proof", "cheap shoes " * 400)]
    assert len(set(small.score(texts).tolist())) == 1


def test_a_score_does_not_depend_on_its_batch(model):
    alone = [float(model.score([text])[0]) for text in TEXTS[:10]]
    assert model.score(TEXTS[:10]).tolist() == pytest.approx(alone, abs=1e-6)


@given(st.lists(st.text(), max_size=4))
@settings(max_examples=30, deadline=None)
def test_any_text_gets_a_finite_score(model, texts):
    scores = model.score(texts)
    assert scores.shape == (len(texts),)
    assert np.isfinite(scores).all()


def test_the_dual_solution_is_ridge_regression():
    texts, labels = [text[:80] for text in TEXTS[:12]], LABELS[:12].astype(float)
    model = hashed_ngrams.HashedNgrams.fit(texts, labels, max_chars=2000)
    x = hashed_ngrams.weigh(hashed_ngrams.count_features(texts), model.idf).toarray()
    used = np.flatnonzero(x.any(axis=0))
    x, centred = x[:, used], labels - labels.mean()
    primal = np.linalg.solve(x.T @ x + model.ridge * np.eye(len(used)), x.T @ centred)
    assert model.weights[used] == pytest.approx(primal, abs=1e-8)
    assert np.count_nonzero(model.weights) <= len(used)


def test_many_texts_are_solved_to_the_same_weights(monkeypatch):
    counts = hashed_ngrams.count_features([text[:80] for text in TEXTS[:40]])
    features = hashed_ngrams.weigh(counts, np.ones(hashed_ngrams.NUM_COLUMNS))
    centred = LABELS[:40] - LABELS[:40].mean()
    exact, ridge = hashed_ngrams.solve_ridge(features, centred)
    monkeypatch.setattr(hashed_ngrams, "MAX_DUAL", 10)
    iterated, same = hashed_ngrams.solve_ridge(features, centred)
    assert ridge == same
    assert iterated == pytest.approx(exact, abs=1e-6)


def test_the_gram_matrix_is_that_of_the_plain_product():
    features = hashed_ngrams.weigh(hashed_ngrams.count_features(TEXTS[:40]), np.ones(hashed_ngrams.NUM_COLUMNS))
    assert hashed_ngrams.gram_matrix(features) == pytest.approx((features @ features.T).toarray())


def test_leave_one_out_errors_are_those_of_leaving_one_out():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 30)), rng.normal(size=12)
    gram, centred = x @ x.T, y - y.mean()
    fast = hashed_ngrams.leave_one_out_errors(*scipy.linalg.eigh(gram), y, 0.3)
    for i in range(12):
        rest = np.arange(12) != i
        dual = np.linalg.solve(gram[np.ix_(rest, rest)] + 0.3 * np.eye(11), centred[rest])
        assert fast[i] == pytest.approx(centred[i] - gram[i, rest] @ dual)


def test_noise_is_held_down_and_a_clear_signal_is_not():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 40))
    signal, noise = (hashed_ngrams.choose_ridge(x @ x.T, y) for y in (x[:, 0], rng.normal(size=60)))
    assert signal < 1 < noise


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_a_file_that_is_no_classifier_is_refused(content, tmp_path):
    path = tmp_path / "model.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match="holds no classifier"):
        load_classifier(path)
