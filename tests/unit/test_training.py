"""Training: stopped, killed, resumed, refused."""

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_detector import StopAfter, tiny_config, tiny_dataset, tiny_synthetic

from gen4det.core.errors import InputError
from gen4det.data.datasets import load_dataset
from gen4det.detection import loop
from gen4det.detection.datasets import DetectionDataset
from gen4det.detection.settings import DetectorSettings, TrainSettings
from gen4det.detection.training import batch_sampler, load_sources, train
from patience import patience


class World:
    """A data set, a synthetic set and a config in a folder, and trainings with them."""

    def __init__(self, folder: Path):
        self.folder = folder
        tiny_dataset(folder / "data")
        self.dataset = load_dataset(folder / "data" / "dataset.json")
        self.synthetic = tiny_synthetic(folder / "mosaicfusion", [[20], [20, 7], [20, 3]])
        self.config = tiny_config(folder)

    def settings(self, seed: int = 0, real: bool = True, **detector: object) -> TrainSettings:
        detector = DetectorSettings(config=str(self.config), **detector)
        return TrainSettings(detector=detector, seed=seed, real=real)

    def train(self, run: str, *, settings: TrainSettings | None = None, fingerprint: str = "a", **options):
        return train(
            settings or self.settings(),
            self.dataset,
            [self.synthetic],
            self.output(run),
            fingerprint={"settings": fingerprint},
            **options,
        )

    def output(self, run: str) -> Path:
        return self.folder / run / "weights.safetensors"

    def work(self, run: str) -> Path:
        return self.folder / run / "work"

    def command(self, run: str, *extra: str, settings: TrainSettings | None = None) -> list[str]:
        """The command line of the stage."""
        text = (settings or self.settings()).model_dump_json()
        arguments = [
            "--settings",
            text,
            "--dataset",
            str(self.dataset.path),
            "--synthetic",
            str(self.synthetic),
        ]
        return [*arguments, "--output", str(self.output(run)), "--device", "cpu", *extra]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def uninterrupted(world) -> Path:
    """The result of a training that nothing disturbed."""
    assert world.train("uninterrupted").finished
    return world.output("uninterrupted")


def stage(*arguments: str, before: str = "") -> subprocess.CompletedProcess:
    """Run the training stage in a process of its own, `before` in it first."""
    program = f"{before}\nimport runpy\nrunpy.run_module('gen4det.stages.train', run_name='__main__')"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        capture_output=True, text=True, env=environment, timeout=patience(300),
    )  # fmt: skip


# Kills or signals the process inside its fourth iteration; every iteration before was saved.
IN_FOURTH_ITERATION = """
import os, signal
from gen4det.detection import loop
from gen4det.training import work_folder
work_folder.SAVE_SECONDS, work_folder.SAVE_SHARE = 0.0, 1e9
add = loop.Losses.add
def add_and_die(self, values):
    if len(self) == 3:
        os.kill(os.getpid(), signal.{name})
    add(self, values)
loop.Losses.add = add_and_die
"""


# --- what a training leaves behind ------------------------------------------------------------------


def test_a_training_writes_weights_and_losses(world, uninterrupted):
    folder = uninterrupted.parent
    assert sorted(path.name for path in folder.iterdir()) == ["losses.csv", "weights.safetensors"]
    header, *rows = list(csv.reader(open(folder / "losses.csv")))
    assert header[:2] == ["iteration", "loss"] and "loss_mask" in header
    assert [int(row[0]) for row in rows] == [1, 2, 3, 4, 5, 6]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(world, uninterrupted):
    world.train("again")
    world.train("other", settings=world.settings(seed=1))
    assert world.output("again").read_bytes() == uninterrupted.read_bytes()
    assert world.output("other").read_bytes() != uninterrupted.read_bytes()


def test_workers_change_nothing(world, uninterrupted):
    world.train("workers", workers=2)
    assert world.output("workers").read_bytes() == uninterrupted.read_bytes()


# --- interruptions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stops", [[1], [3], [2, 3]])
def test_a_stopped_training_ends_with_the_weights_of_an_uninterrupted_one(world, uninterrupted, stops):
    run = f"stopped{stops}"
    for iterations in stops:
        trained = world.train(run, stop=StopAfter(iterations))
        assert not trained.finished and not world.output(run).exists()
    assert trained.iteration == sum(stops)
    assert world.train(run).finished
    assert world.output(run).read_bytes() == uninterrupted.read_bytes()
    losses = world.folder / run / "losses.csv"
    assert losses.read_bytes() == uninterrupted.with_name("losses.csv").read_bytes()
    assert not world.work(run).exists()


def test_kill_9_and_resume_gives_the_weights_of_an_uninterrupted_training(world, uninterrupted):
    killed = stage(*world.command("killed"), before=IN_FOURTH_ITERATION.format(name="SIGKILL"))
    assert killed.returncode == -signal.SIGKILL
    saved = torch.load(world.work("killed") / "checkpoint.pt", weights_only=True)
    assert saved["iteration"] == 3
    resumed = stage(*world.command("killed"))
    assert resumed.returncode == 0, resumed.stderr
    found, expected = load_file(world.output("killed")), load_file(uninterrupted)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    record = json.loads(Path(f"{world.output('killed')}.record.json").read_text())
    assert record["iterations"] == 6 and record["images"] == {"tiny": 24, "mosaicfusion": 3}
    assert record["seeds"] == {"seed": 0} and record["losses"]["loss"] > 0


def test_sigterm_saves_first_and_exits_with_143(world):
    ended = stage(*world.command("terminated"), before=IN_FOURTH_ITERATION.format(name="SIGTERM"))
    assert ended.returncode == 143, ended.stderr
    assert "stopped after iteration 4; run the same command again" in ended.stderr
    saved = torch.load(world.work("terminated") / "checkpoint.pt", weights_only=True)
    assert saved["iteration"] == 4


def test_a_used_up_budget_saves_first_and_exits_with_75(world):
    ended = stage(*world.command("budget", "--max-seconds", "0.01"))
    assert ended.returncode == 75, ended.stderr
    saved = torch.load(world.work("budget") / "checkpoint.pt", weights_only=True)
    assert saved["iteration"] == 1  # the first is always allowed
    fingerprint = json.loads((world.work("budget") / "fingerprint.json").read_text())
    assert set(fingerprint) == {
        "settings", "code", "dataset", "config", "synthetic sets", "backbone weights", "device",
    }  # fmt: skip


def test_attempts_that_make_progress_may_go_on_for_ever(world):
    for _ in range(5):
        assert not world.train("slow", stop=StopAfter(1)).finished
    assert world.train("slow").finished


def test_attempts_that_die_at_the_same_iteration_are_refused(world, monkeypatch):
    world.train("dying", stop=StopAfter(2))

    def die(self, batch):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainingLoop, "_iterate", die)
        for _ in range(2):
            with pytest.raises(MemoryError):
                world.train("dying")
        with pytest.raises(InputError, match="2 attempts began at iteration 2"):
            world.train("dying")
    (world.work("dying") / "attempts.json").unlink()
    assert world.train("dying").finished


def test_ctrl_c_is_no_failed_attempt(world, monkeypatch):
    def interrupt(self, batch):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainingLoop, "_iterate", interrupt)
        for _ in range(4):
            with pytest.raises(KeyboardInterrupt):
                world.train("interrupted")


# --- refusals ---------------------------------------------------------------------------------------


def test_a_foreign_checkpoint_is_refused(world):
    world.train("foreign", fingerprint="a", stop=StopAfter(2))
    with pytest.raises(InputError, match="begun with other settings; delete this folder"):
        world.train("foreign", fingerprint="b")
    assert world.train("foreign", fingerprint="a").finished


def test_without_a_checkpoint_nothing_is_foreign(world, monkeypatch):
    world.train("begun", fingerprint="a", stop=StopAfter(0))
    assert world.train("begun", fingerprint="b").finished


def test_a_damaged_checkpoint_is_refused(world):
    world.train("damaged", stop=StopAfter(2))
    path = world.work("damaged") / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged checkpoint; delete"):
        world.train("damaged")


def test_two_trainings_in_one_folder_are_refused(world):
    class TrainAgain(StopAfter):
        def reached(self) -> bool:
            with pytest.raises(InputError, match="another process is training"):
                world.train("twice")
            return super().reached()

    world.train("twice", stop=TrainAgain(1))


def test_divergence_is_one_line(world):
    config = tiny_config(world.folder, max_iters=20, param_scheduler=[], clip_grad=None)
    config = config.rename(world.folder / "diverging.py")
    config.write_text(config.read_text().replace("lr=0.01", "lr=1e18"))
    tiny_config(world.folder)
    detector = DetectorSettings(config=str(config))
    with pytest.raises(InputError, match="training diverged: .* lower the learning rate"):
        world.train("diverged", settings=TrainSettings(detector=detector))


def test_missing_synthetic_set_is_one_line(world):
    ended = stage(*world.command("missing"), "--synthetic", "nowhere/annotations.json")
    assert ended.returncode == 2 and "error: nowhere/annotations.json: no such file" in ended.stderr


# --- recipes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["train_pipeline", "test_pipeline"])
def test_a_pipeline_that_cannot_be_made_is_refused_before_the_first_batch(world, tmp_path, part):
    """One for the answers of the trained detector would otherwise be found wrong when it has been trained."""
    config = tiny_config(tmp_path, **{part: [dict(type="LoadStoredImage"), dict(type="Corrupt")]})
    settings = TrainSettings(detector=DetectorSettings(config=str(config)))
    with pytest.raises(
        InputError, match=rf"tiny_detector\.py: {part}: Corrupt: Corrupt is not in .*registry$"
    ):
        world.train(f"refused-{part}", settings=settings)
    assert not world.work(f"refused-{part}").exists()


def test_training_starts_from_backbone_weights(world, tmp_path):
    before = load_file(world.output("uninterrupted")) if world.output("uninterrupted").exists() else None
    if before is None:
        world.train("uninterrupted")
        before = load_file(world.output("uninterrupted"))
    backbone = {n.removeprefix("backbone."): v for n, v in before.items() if n.startswith("backbone.")}
    path = tmp_path / "model.safetensors"
    save_file(
        {name: value.half() if value.is_floating_point() else value for name, value in backbone.items()}, path
    )
    settings = world.settings(backbone_weights=str(path), iterations=1)
    assert world.train("pretrained", settings=settings).finished
    after = load_file(world.output("pretrained"))
    name = "backbone.layer1.0.conv1.weight"
    assert (after[name] - before[name]).abs().max() < 0.01  # half precision and one step away
    with pytest.raises(InputError, match="no such file of backbone weights"):
        world.train("absent", settings=world.settings(backbone_weights=str(tmp_path / "absent.safetensors")))
    del backbone["conv1.weight"]
    save_file(backbone, path)
    with pytest.raises(InputError, match=r"not the weights of this backbone: no conv1\.weight"):
        world.train("headless", settings=settings)


def images_of(world, synthetic: list[Path]) -> DetectionDataset:
    return DetectionDataset(*load_sources(world.dataset, synthetic), [])


def test_real_and_synthetic_batches_can_be_kept_apart(world):
    data = images_of(world, [world.synthetic])
    settings = world.settings(synthetic_batches=0.5)
    batches = [batch for batch, _ in zip(batch_sampler(data, settings, 4), range(200), strict=False)]
    synthetic = [{bool(data.origin[draw.index]) for draw in batch} for batch in batches]
    assert all(len(kinds) == 1 for kinds in synthetic)
    assert 60 < sum(kinds == {True} for kinds in synthetic) < 140


def test_synthetic_batches_of_probability_zero_are_the_training_on_real_images(world):
    settings = world.settings(synthetic_batches=0.0, repeat_by="each", repeat_threshold=0.5)
    orders = [
        itertools.islice(batch_sampler(images_of(world, synthetic), settings, 4), 40)
        for synthetic in ([], [world.synthetic])
    ]
    assert list(orders[0]) == list(orders[1])


@pytest.mark.parametrize(
    "repeat_by, real, synthetic",
    [  # 24 real images, 4 with a ring; 3 synthetic images, all with a ring
        ("all", (27 / 7) ** 0.5, (27 / 7) ** 0.5),
        ("real", (24 / 4) ** 0.5, (24 / 4) ** 0.5),
        ("each", (24 / 4) ** 0.5, 1.0),
    ],
)
def test_repeat_factors_are_counted_on_the_images_the_settings_name(world, repeat_by, real, synthetic):
    settings = world.settings(repeat_threshold=1.0, repeat_by=repeat_by)
    data = images_of(world, [world.synthetic])
    factors = batch_sampler(data, settings, 4).pools[0].factors
    ring = [2 in labels for labels in data.contents]
    assert factors[[r and o == 0 for r, o in zip(ring, data.origin, strict=True)]] == pytest.approx(real)
    assert factors[24] == pytest.approx(synthetic)  # a ring alone


def test_the_rare_images_repeated_as_often_as_synthetic_ones_would_come(world):
    """The control: the very batches of the synthetic arm, real images with rings in place of drawn ones."""
    data = images_of(world, [world.synthetic])
    plain, control = (
        list(itertools.islice(batch_sampler(data, world.settings(replay_real=replay), 4), 60))
        for replay in (False, True)
    )
    replaced = 0
    for before, after in zip(itertools.chain(*plain), itertools.chain(*control), strict=True):
        if data.synthetic[before.index]:
            assert not data.synthetic[after.index] and 2 in data.contents[after.index]
            replaced += 1
        else:
            assert after == before
    assert replaced > 10


def test_a_longer_schedule_stretches_the_training(world):
    trained = world.train("longer", settings=world.settings(iterations=2, schedule=1.5))
    assert trained.iteration == 3


def test_synthetic_images_alone(world):
    trained = world.train("synthetic", settings=world.settings(real=False, iterations=2))
    assert trained.facts["images"] == {"mosaicfusion": 3}
    assert len(images_of(world, [world.synthetic])) == 27


def test_plain_concatenation_is_one_data_set(world):
    """With every switch off a synthetic set is more images of the same data set."""
    data = images_of(world, [world.synthetic])
    sampler = batch_sampler(data, world.settings(), 4)
    assert len(sampler.pools) == 1 and sampler.pools[0].indices.tolist() == list(range(27))


@pytest.mark.parametrize("mixing", ["batch", "image"])
def test_each_kind_is_drawn_with_its_probability(world, mixing):
    data = images_of(world, [world.synthetic])
    settings = world.settings(synthetic_batches=0.25, synthetic_mixing=mixing)
    batches = itertools.islice(batch_sampler(data, settings, 4), 400)
    shares = [sum(bool(data.synthetic[draw.index]) for draw in batch) / 4 for batch in batches]
    assert sum(shares) / 400 == pytest.approx(0.25, abs=0.06)
    assert (set(shares) == {0, 1}) == (mixing == "batch")


def boxes_only(world: World, name: str, **image: object) -> Path:
    """The synthetic set without masks."""
    path = tiny_synthetic(world.folder / name, [[20], [20, 7], [20, 3]])
    data = json.loads(path.read_text())
    for annotation in data["annotations"]:
        del annotation["segmentation"]
    for record in data["images"]:
        record.update(image)
    path.write_text(json.dumps(data))
    return path


def test_what_was_drawn_after_images_of_another_split_is_refused(world):
    path = boxes_only(world, "leaked", reference_image_id=24)
    with pytest.raises(InputError, match="leaked.*: does not say of which split its references are; draw"):
        load_sources(world.dataset, [path])
    for split, refused in ((world.dataset.train.hash, False), (world.dataset.val.hash, True)):
        data = json.loads(path.read_text())
        data["info"]["split"] = split
        path.write_text(json.dumps(data))
        if refused:
            with pytest.raises(
                InputError, match=r"drawn from other training images than .*train\.json; draw"
            ):
                load_sources(world.dataset, [path])
        else:
            assert load_sources(world.dataset, [path])


GEN2DET = dict(synthetic_batches=0.5, repeat_by="each", ignore_background=True)


def test_no_mask_is_learned_from_boxes(world, monkeypatch):
    monkeypatch.setattr(world, "synthetic", boxes_only(world, "gen2det"))
    assert world.train("boxes", settings=world.settings(**GEN2DET)).finished
    rows = list(csv.DictReader(open(world.folder / "boxes" / "losses.csv")))
    empty = [row["loss_mask"] == "" for row in rows]
    data = images_of(world, [world.synthetic])
    batches = itertools.islice(batch_sampler(data, world.settings(**GEN2DET), 2), len(rows))
    assert empty == [bool(data.synthetic[batch[0].index]) for batch in batches]
    assert 0 < sum(empty) < len(rows)


@pytest.mark.parametrize("mixing", ["batch", "image"])
def test_two_processes_train_together_on_images_with_and_without_masks(world, mixing, monkeypatch):
    """A parameter without a gradient in one process would stop the other one."""
    monkeypatch.setattr(world, "synthetic", boxes_only(world, f"gen2det-{mixing}"))
    settings = world.settings(**GEN2DET, synthetic_mixing=mixing)
    ended = torchrun(world.command(f"together-{mixing}", settings=settings))
    assert ended.returncode == 0, ended.stderr
    assert world.output(f"together-{mixing}").exists()


@pytest.fixture(scope="module")
def undisturbed_pair(world) -> Path:
    """The result of two processes that nothing disturbed: gloo, the batch is shared, the first one writes."""
    ended = torchrun(world.command("pair"))
    assert ended.returncode == 0, ended.stderr
    return world.output("pair")


def test_two_processes_train_together_and_the_first_alone_writes(world, undisturbed_pair):
    folder = undisturbed_pair.parent
    assert {path.name for path in folder.iterdir()} == {
        "losses.csv", "train.log", "weights.safetensors", "weights.safetensors.record.json",
    }  # fmt: skip
    assert (folder / "train.log").read_text().count("wrote") == 1
    assert json.loads(Path(f"{undisturbed_pair}.record.json").read_text())["processes"] == 2


# Every process is signalled inside its fourth iteration, and again while the first one saves.
BOTH_SIGNALLED = """
import os, signal, torch
from gen4det.detection import loop
add, save = loop.Losses.add, torch.save
def add_and_signal(self, values):
    if len(self) == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    add(self, values)
def signal_and_save(*arguments):
    if {again}:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getppid(), signal.SIGTERM)  # torchrun, which passes it on to both
        import time; time.sleep(2)
    save(*arguments)
loop.Losses.add, torch.save = add_and_signal, signal_and_save
"""


@pytest.mark.parametrize("again", [False, True])
def test_two_processes_that_are_signalled_save_and_go_on_to_the_same_bytes(world, undisturbed_pair, again):
    """A scheduler signals every process of a job, and torchrun passes its own signal on."""
    run = f"pair signalled {again}"
    ended = torchrun(world.command(run), before=BOTH_SIGNALLED.format(again=again))
    assert ended.returncode != 0 and "stopped after iteration 4; run the same command" in ended.stderr
    assert torch.load(world.work(run) / "checkpoint.pt", weights_only=True)["iteration"] == 4
    assert torchrun(world.command(run)).returncode == 0
    assert world.output(run).read_bytes() == undisturbed_pair.read_bytes()


# What differs between one process and two by intention: the random choice of regions.
FIRST_REGIONS = """
from gen4det.detection import detectors  # makes mmdet usable
from mmdet.models.task_modules.samplers import RandomSampler
RandomSampler.random_choice = lambda self, gallery, number: gallery[:number]
"""


def test_two_processes_train_to_what_one_trains_stopped_and_resumed(world):
    """With the same batches but for the order of sums; regions in a fixed order, no means over found ones."""
    same = "backbone=dict(base_channels=8, norm_eval=True, frozen_stages=-1)"
    text = world.config.read_text().replace("backbone=dict(base_channels=8)", same)
    config = world.folder / "comparable.py"
    config.write_text(text.replace("mask_head=dict(", "mask_head=dict(loss_mask=dict(loss_weight=0.0), "))
    settings = TrainSettings(detector=DetectorSettings(config=str(config)))
    one = stage(*world.command("one", settings=settings), before=FIRST_REGIONS)
    assert one.returncode == 0, one.stderr
    stopped = torchrun(
        world.command("two", settings=settings), before=FIRST_REGIONS + BOTH_SIGNALLED.format(again=False)
    )
    assert stopped.returncode != 0 and world.work("two").exists()
    ended = torchrun(world.command("two", settings=settings), before=FIRST_REGIONS)
    assert ended.returncode == 0, ended.stderr
    found, expected = load_file(world.output("two")), load_file(world.output("one"))
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-4, atol=1e-6), name


def torchrun(arguments: list[str], before: str = "") -> subprocess.CompletedProcess:
    """Run the training stage in two processes, `before` in each of them first."""
    program = f"{before}\nimport runpy\nrunpy.run_module('gen4det.stages.train', run_name='__main__')"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with tempfile.TemporaryDirectory() as folder:  # of its own: Python looks there for modules first
        script = Path(folder, "training.py")
        script.write_text(program)
        command = [sys.executable, "-W", "ignore", *launcher, str(script), *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=patience(300))
