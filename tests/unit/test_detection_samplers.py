"""Orders of images: repeat factors, epochs, batches that can be resumed and shared."""

import itertools
import math
import pickle
import tracemalloc

import numpy as np
import pytest

from gen4det.detection import label_index, samplers
from gen4det.detection.label_index import Contents
from gen4det.detection.samplers import BatchSampler, Draw, InterleavedSampler, Pool, repeat_factors, replayed


def take(iterable, count):
    return list(itertools.islice(iterable, count))


# --- repeat factors -------------------------------------------------------------------------------


def test_repeat_factors_follow_lvis():
    contents = [[0]] * 90 + [[0, 1]] * 9 + [[0, 1, 2]]  # shares of images: 1, 0.1, 0.01
    factors = repeat_factors(Contents.of(contents), threshold=0.25)
    assert factors[0] == 1
    assert factors[90] == pytest.approx(math.sqrt(0.25 / 0.1))
    assert factors[99] == pytest.approx(math.sqrt(0.25 / 0.01))


def test_threshold_zero_and_images_without_objects_repeat_nothing():
    assert repeat_factors(Contents.of([[0], [], [1]]), threshold=0.0).tolist() == [1, 1, 1]
    assert repeat_factors(Contents.of([[0], []]), threshold=1.0)[1] == 1


def test_factors_can_be_counted_on_the_real_images_alone():
    contents = [[0]] * 9 + [[1]] + [[1]] * 30  # the last thirty are synthetic
    real = np.array([True] * 10 + [False] * 30)
    assert repeat_factors(Contents.of(contents), 0.5)[9] == 1  # 31 of 40 images show category 1
    assert repeat_factors(Contents.of(contents), 0.5, counted=real)[9] == pytest.approx(math.sqrt(0.5 / 0.1))


def test_a_category_that_only_synthetic_images_show_counts_as_one_real_image():
    factors = repeat_factors(Contents.of([[0]] * 4 + [[1]]), 1.0, counted=np.array([True] * 4 + [False]))
    assert factors[4] == pytest.approx(2.0)


# --- pools ----------------------------------------------------------------------------------------


def test_an_epoch_shows_each_image_as_often_as_its_factor_says():
    pool = Pool(np.arange(4), np.array([1.0, 2.0, 2.25, 1.5]), seed=3)
    counts = np.array([np.bincount(pool.epoch(epoch), minlength=4) for epoch in range(1000)])
    assert set(counts[:, 0]) == {1} and set(counts[:, 1]) == {2}
    assert set(counts[:, 2]) == {2, 3} and set(counts[:, 3]) == {1, 2}
    np.testing.assert_allclose(counts.mean(0), [1, 2, 2.25, 1.5], atol=0.05)


def test_epochs_differ_and_are_shuffled():
    pool = Pool(np.arange(50), np.ones(50), seed=0)
    first, second = pool.epoch(0), pool.epoch(1)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first.tolist() != second.tolist() != list(range(50))


@pytest.mark.parametrize("start", [0, 1, 6, 7, 40, 123])
def test_reading_from_a_position_goes_on_as_if_read_from_the_start(start):
    pool = Pool(np.array([4, 8, 9]), np.array([1.0, 3.5, 1.2]), seed=1)
    assert take(pool.read(start), 30) == take(pool.read(), start + 30)[start:]


def test_a_pool_without_images_is_refused():
    with pytest.raises(ValueError, match="without images"):
        Pool(np.array([]), np.array([]), seed=0)


# --- many images ----------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [1, 7, 1 << 17])
def test_images_looked_at_in_portions_are_those_looked_at_one_by_one(monkeypatch, together):
    monkeypatch.setattr(label_index, "_AT_ONCE", together)
    monkeypatch.setattr(samplers, "_PORTION", together)
    rng = np.random.default_rng(1)
    lists = [sorted(set(rng.integers(0, 9, rng.integers(0, 5)).tolist())) for _ in range(60)]
    contents, synthetic = Contents.of(lists), np.arange(60) >= 25
    order = rng.permutation(60)[:40]
    assert list(contents.take(order)) == [lists[image] for image in order]
    assert list(Contents.joined([contents, contents.take(order)])) == lists + [lists[it] for it in order]

    images = [sum(label in labels for labels in lists[:25]) for label in range(9)]
    factor = [max(1.0, math.sqrt(0.4 * 25 / max(1, count))) for count in images]
    expected = [max((factor[label] for label in labels), default=1.0) for labels in lists]
    factors = repeat_factors(contents, 0.4, counted=~synthetic)
    assert factors.tolist() == expected

    known = [k for k, labels in enumerate(lists) if k < 25 or any(images[label] for label in labels)]
    places = replayed(contents.take(np.array(known)), synthetic[known])
    for index, image in enumerate(known):
        if image >= 25:
            rarest = min((it for it in lists[image] if images[it]), key=lambda label: images[label])
            assert places[index].tolist() == [k for k in range(25) if rarest in lists[k]]
        else:
            assert index not in places

    pool, draws = Pool(np.arange(60), factors, 5), np.random.default_rng(samplers.seed_for(5, "epoch", 2))
    often = np.floor(factors).astype(int) + (draws.random(60) < factors - np.floor(factors))
    assert pool.epoch(2).tolist() == draws.permutation(np.repeat(np.arange(60), often)).tolist()


def test_an_order_of_many_images_takes_a_few_bytes_for_each():
    """Four million images in each process that trains: what is a list elsewhere must be an array here."""
    count = 300_000
    starts = np.arange(count + 1, dtype=np.int32) * 5
    contents = Contents(np.tile(np.arange(15, dtype=np.int32), count // 3), starts)
    synthetic = np.arange(count) >= 1000
    tracemalloc.start()
    try:
        factors = repeat_factors(contents, 0.5)
        sampler = InterleavedSampler([Pool(np.arange(count), factors, 1)], 4, 0)
        next(iter(sampler))
        places = replayed(contents, synthetic)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(places) == count - 1000 and peak < 60 * count


# --- batches --------------------------------------------------------------------------------------


def two_pools(**options) -> BatchSampler:
    pools = [Pool(np.arange(10), np.full(10, 1.3), seed=5), Pool(np.arange(10, 14), np.ones(4), seed=6)]
    return BatchSampler(pools, 4, 0, probabilities=[0.7, 0.3], **options)


def one_pool() -> BatchSampler:
    return BatchSampler([Pool(np.arange(7), np.ones(7), 1)], 4, 0)


def mixed_batches() -> BatchSampler:
    return two_pools(per_image=True)


@pytest.mark.parametrize("make", [one_pool, two_pools, mixed_batches])
@pytest.mark.parametrize("start", [1, 17, 63, 64, 150])
def test_batches_from_an_iteration_on_are_those_of_an_uninterrupted_training(make, start, monkeypatch):
    monkeypatch.setattr(samplers, "_CHOICES", 64)
    whole, resumed = make(), make()
    resumed.start = start
    expected = list(itertools.islice(whole, start, start + 5))
    assert take(resumed, 5) == expected


@pytest.mark.parametrize("per_image", [False, True])
def test_processes_take_disjoint_parts_of_the_same_batches(per_image):
    whole = take(two_pools(per_image=per_image), 20)
    parts = [take(two_pools(per_image=per_image, rank=rank, world_size=2), 20) for rank in range(2)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert sorted(itertools.chain(*shares)) == sorted(batch)
        assert [len(share) for share in shares] == [2, 2]


def test_a_batch_comes_from_one_pool_with_its_probability():
    batches = take(two_pools(), 1500)
    synthetic = [all(draw.index >= 10 for draw in batch) for batch in batches]
    assert all(
        only or all(draw.index < 10 for draw in batch) for only, batch in zip(synthetic, batches, strict=True)
    )
    assert np.mean(synthetic) == pytest.approx(0.3, abs=0.04)


def test_images_of_a_batch_may_come_from_a_pool_each():
    batches = take(two_pools(per_image=True), 1500)
    synthetic = np.array([[draw.index >= 10 for draw in batch] for batch in batches])
    assert synthetic.mean() == pytest.approx(0.3, abs=0.02)
    counts = np.bincount(synthetic.sum(1), minlength=5) / len(batches)
    binomial = [math.comb(4, k) * 0.3**k * 0.7 ** (4 - k) for k in range(5)]
    np.testing.assert_allclose(counts, binomial, atol=0.04)


@pytest.mark.parametrize("per_image", [False, True])
def test_a_probability_of_zero_or_one_is_one_pool_alone(per_image):
    pools = [Pool(np.arange(10), np.full(10, 1.3), seed=5), Pool(np.arange(10, 14), np.ones(4), seed=6)]
    for number, probabilities in enumerate([[1.0, 0.0], [0.0, 1.0]]):
        mixed = BatchSampler(pools, 4, 0, probabilities=probabilities, per_image=per_image)
        assert take(mixed, 30) == take(BatchSampler([pools[number]], 4, 0), 30)


def test_two_tenths_of_ten_thousand_batches():
    pools = [Pool(np.arange(5), np.ones(5), seed=1), Pool(np.arange(5, 8), np.ones(3), seed=2)]
    sampler = BatchSampler(pools, 2, 7, probabilities=[0.8, 0.2])
    assert sampler.choices(0, 10_000).mean() == pytest.approx(0.2, abs=0.012)


def test_every_example_has_its_own_augmentation_seed():
    draws = list(itertools.chain(*take(two_pools(), 500)))
    assert len({draw.seed for draw in draws}) == len(draws)


def test_another_seed_gives_another_order():
    pool = Pool(np.arange(9), np.ones(9), seed=0)
    assert take(BatchSampler([pool], 3, 0), 3) != take(BatchSampler([pool], 3, 1), 3)  # augmentation
    other = Pool(np.arange(9), np.ones(9), seed=1)
    assert take(pool.read(), 9) != take(other.read(), 9)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of 3"):
        two_pools(world_size=3)


def test_draws_travel_to_workers():
    assert pickle.loads(pickle.dumps(Draw(3, 9))) == Draw(3, 9)


# --- replayed images ----------------------------------------------------------------------------------


def test_a_real_image_of_the_rarest_category_takes_the_place_of_a_synthetic_one():
    contents = [[0], [0, 1], [0, 2], [2], [0, 1], [0, 2, 3]]
    synthetic = np.array([False] * 4 + [True] * 2)
    places = replayed(Contents.of(contents), synthetic)
    assert {index: others.tolist() for index, others in places.items()} == {4: [1], 5: [2, 3]}
    with pytest.raises(ValueError, match="image 4: no real image"):
        replayed(Contents.of([[0], [0, 1], [0], [0], [7], [0]]), synthetic)


def test_replaying_changes_which_images_come_and_nothing_else():
    places = {11: np.array([1, 2]), 12: np.array([3]), 10: np.array([5]), 13: np.array([0, 9])}
    plain, replaying = take(two_pools(), 300), take(two_pools(places=places), 300)
    seen = set()
    for before, after in zip(itertools.chain(*plain), itertools.chain(*replaying), strict=True):
        assert before.seed == after.seed
        if before.index < 10:
            assert after == before
        else:
            assert after.index in places[before.index]
            seen.add(after.index)
    assert seen == {0, 1, 2, 3, 5, 9}
    resumed = two_pools(places=places)
    resumed.start = 100
    assert take(resumed, 5) == replaying[100:105]


# --- batches of one source each -----------------------------------------------------------------------


def interleaving(start: int = 0, **options) -> InterleavedSampler:
    pools = [Pool(np.arange(12), np.ones(12), 1), Pool(np.arange(12, 18), np.ones(6), 2)]
    sampler = InterleavedSampler(pools, batch_size=2, seed=0, **options)
    sampler.start = start
    return sampler


def test_each_source_is_exhausted_once_in_an_epoch_in_proportion_and_reshuffled():
    batches = list(itertools.islice(interleaving(), 18))
    kinds = ["rs"[batch[0].index >= 12] for batch in batches]
    assert all(
        ("rs"[draw.index >= 12] == kind) for batch, kind in zip(batches, kinds, strict=True) for draw in batch
    )
    assert "".join(kinds) == "rsrrsrrsr" * 2
    epochs = [[draw.index for batch in batches[first : first + 9] for draw in batch] for first in (0, 9)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(18)) and epochs[0] != epochs[1]


def test_an_interleaved_training_goes_on_where_it_was_and_processes_share_batches():
    whole = list(itertools.islice(interleaving(), 12))
    assert list(itertools.islice(interleaving(start=10), 2)) == whole[10:]
    parts = [list(itertools.islice(interleaving(rank=rank, world_size=2), 3)) for rank in range(2)]
    assert [[first, second] for (first,), (second,) in zip(*parts, strict=True)] == whole[:3]
    with pytest.raises(ValueError, match="not a multiple of 3"):
        interleaving(world_size=3)


def test_a_source_that_does_not_fill_its_last_batch_shows_its_first_images_again():
    sampler = InterleavedSampler([Pool(np.arange(5), np.ones(5), 1)], batch_size=2, seed=0)
    numbers = [number for batch in sampler.epoch(0) for number in batch.tolist()]
    assert len(numbers) == 6 and set(numbers) == set(range(5)) and numbers[5] == numbers[0]
