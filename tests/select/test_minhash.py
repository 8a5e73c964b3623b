"""MinHash: the recall that the formula promises, by the signer and by a plain reference."""

import numpy as np
import pytest
from rensa import RMinHash

from gristmill.errors import ResourceError
from gristmill.select import minhash
from gristmill.select.words import mix, ngrams_per_text, split_words

BANDS, ROWS = 14, 8
BLOCK_NGRAMS = 16_384


def plain_sign(ngrams, offsets_D1, *, num_hashes, seed):
    """The same by the plain method: the minimum of `num_hashes` independent 64-bit hashes of each n-gram.

    A text without n-grams gets the largest value everywhere.
    """
    rng = np.random.default_rng(seed)
    # The multipliers must be full 64-bit odd numbers: with 32-bit ones all hashes keep the same minimum.
    multipliers = rng.integers(0, 2**64, size=num_hashes, dtype=np.uint64) | np.uint64(1)
    addends = rng.integers(0, 2**64, size=num_hashes, dtype=np.uint64)
    signatures = np.full((len(offsets_D1) - 1, num_hashes), np.iinfo(np.uint64).max, dtype=np.uint64)
    for d in range(len(offsets_D1) - 1):
        for start in range(int(offsets_D1[d]), int(offsets_D1[d + 1]), BLOCK_NGRAMS):
            block = ngrams[start : min(start + BLOCK_NGRAMS, int(offsets_D1[d + 1]))]
            hashed = mix(block[:, None] * multipliers + addends)
            np.minimum(signatures[d], hashed.min(axis=0), out=signatures[d])
    return signatures


SIGNERS = [plain_sign, minhash.sign]


def pairs_with_jaccard(jaccard, pairs, rng, size=120):
    """2 × pairs sets, each pair sharing exactly the wanted part of its union, as flat hashes and offsets."""
    shared = round(2 * size * jaccard / (1 + jaccard))
    rows = []
    for _ in range(pairs):
        fresh = rng.integers(0, 2**64, size=2 * size - shared, dtype=np.uint64)
        rows += [fresh[:size], np.concatenate([fresh[:shared], fresh[size:]])]
    true = shared / (2 * size - shared)
    return np.concatenate(rows), np.arange(0, (2 * pairs + 1) * size, size), true


@pytest.mark.parametrize("signer", SIGNERS)
@pytest.mark.parametrize("jaccard", [0.95, 0.85, 0.75, 0.6, 0.3])
def test_recall_lies_on_the_theory_curve(signer, jaccard):
    pairs = 400
    flat, offsets, true = pairs_with_jaccard(jaccard, pairs, np.random.default_rng(int(100 * jaccard)))
    signatures = signer(flat, offsets, num_hashes=BANDS * ROWS, seed=3)
    keys = minhash.band_keys(signatures, num_bands=BANDS, rows_per_band=ROWS)
    found = (keys[0::2] == keys[1::2]).any(axis=1).mean()
    expected = minhash.chance_found(true, num_bands=BANDS, rows_per_band=ROWS)
    four_errors = 4 * np.sqrt(max(expected * (1 - expected), 1 / pairs) / pairs)
    assert found == pytest.approx(expected, abs=four_errors)


def edited_pairs(pairs, words, rng):
    """Documents of random words and copies with 1 to 6 words replaced: texts, and the true 5-gram similarity."""
    texts, jaccards = [], []
    for i in range(pairs):
        original = [f"w{n}" for n in rng.integers(0, 10**6, words)]
        copy = list(original)
        for place in rng.choice(words, 1 + i % 6, replace=False):
            copy[place] = "other"
        grams = [{tuple(text[k : k + 5]) for k in range(words - 4)} for text in (original, copy)]
        jaccards.append(len(grams[0] & grams[1]) / len(grams[0] | grams[1]))
        texts += [" ".join(original), " ".join(copy)]
    return texts, np.array(jaccards)


@pytest.mark.parametrize("signer", SIGNERS)
def test_recall_on_edited_documents_is_what_their_similarity_promises(signer):
    texts, jaccards = edited_pairs(300, 70, np.random.default_rng(4))
    flat, offsets = ngrams_per_text(split_words(texts), 5)
    keys = minhash.band_keys(
        signer(flat, offsets, num_hashes=BANDS * ROWS, seed=9), num_bands=BANDS, rows_per_band=ROWS
    )
    found = (keys[0::2] == keys[1::2]).any(axis=1)
    expected = np.array([minhash.chance_found(j, num_bands=BANDS, rows_per_band=ROWS) for j in jaccards])
    spread = np.sqrt((expected * (1 - expected)).sum())
    assert 0.4 < expected.mean() < 0.95
    assert found.sum() == pytest.approx(expected.sum(), abs=4 * spread)


@pytest.mark.parametrize("signer", SIGNERS)
def test_equal_rows_estimate_the_jaccard_similarity(signer):
    flat, offsets, true = pairs_with_jaccard(0.5, 200, np.random.default_rng(1))
    signatures = signer(flat, offsets, num_hashes=112, seed=0)
    assert (signatures[0::2] == signatures[1::2]).mean() == pytest.approx(true, abs=0.02)


@pytest.mark.parametrize("signer", SIGNERS)
def test_a_signature_depends_on_the_set_and_the_seed_alone(signer):
    values = np.arange(50, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    both = np.concatenate([values, values[::-1], values[:1]])
    offsets = np.array([0, 50, 101], dtype=np.int64)
    first, second = signer(both, offsets, num_hashes=16, seed=5)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, signer(both, offsets, num_hashes=16, seed=6)[0])


def test_signatures_are_the_values_of_rensa():
    values = np.arange(1, 301, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    offsets = np.arange(301)  # of one n-gram each, so that the values reach from 0 to 2**32
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(values, offsets, 16, 3)
    signatures = minhash.sign(values, offsets, num_hashes=16, seed=3)
    assert signatures.max() > 2**31
    assert signatures.tolist() == matrix.to_rows()


def test_a_rensa_that_signs_otherwise_is_refused(monkeypatch):
    monkeypatch.setattr(minhash, "ALGORITHM", minhash.ALGORITHM + 1)
    with pytest.raises(ResourceError, match="signs by its algorithm"):
        minhash.sign(np.zeros(0, np.uint64), np.zeros(1, np.int64), num_hashes=1, seed=0)


def test_the_curve_of_the_method():
    curve = [minhash.chance_found(j, num_bands=14, rows_per_band=8) for j in (0.5, 0.7, 0.8, 0.9)]
    assert curve == pytest.approx([0.053, 0.565, 0.924, 1.0], abs=6e-4)


def test_candidates_are_those_that_share_a_band_and_take_part():
    keys = np.array([[1, 9], [1, 8], [2, 8], [1, 7]], dtype=np.uint64)
    lefts, rights = minhash.candidate_edges(keys, np.array([True, True, True, False]))
    assert {tuple(sorted(edge)) for edge in zip(lefts.tolist(), rights.tolist(), strict=True)} == {(0, 1), (1, 2)}
