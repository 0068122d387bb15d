"""The record of a training's losses."""

import math
import subprocess
import sys

import pytest
import torch

from gen4det.core.errors import InputError
from gen4det.evaluation.loss_curve import loss_curve
from gen4det.training.losses import Losses


def filled(count: int, start: int = 0, losses: Losses | None = None) -> Losses:
    losses = losses or Losses()
    for value in range(start, start + count):
        losses.add(
            {
                "loss_mask": torch.tensor(float(value)),
                "loss": torch.tensor(2.0 * value),
                "acc": torch.tensor(9),
            }
        )
    return losses


def test_the_sum_comes_first_and_what_is_no_loss_is_left_out():
    losses = filled(2)
    assert losses.table() == (["iteration", "loss", "loss_mask"], [[1, 0, 0], [2, 2, 1]])
    assert losses.latest() == {"loss": 2.0, "loss_mask": 1.0}


def test_a_long_training_is_averaged_over_equal_stretches():
    header, rows = filled(1500).table()
    assert len(rows) == 500
    assert rows[0] == [3, pytest.approx(2.0), pytest.approx(1.0)]
    assert rows[-1][0] == 1500


def test_state_restores_everything():
    first = filled(7)
    restored = filled(6, start=7, losses=Losses(first.state()))
    assert restored.table() == filled(13).table() and len(restored) == 13


def test_means_leave_out_iterations_that_lack_a_loss(tmp_path):
    losses = Losses()
    for value in range(1500):  # rows of three iterations
        values = {"loss": torch.tensor(1.0), "loss_box": torch.tensor(2.0)}
        if value % 3 == 1 and value > 2:
            values["loss_mask"] = torch.tensor(float(value))
        losses.add(values)
    losses = Losses(losses.state())
    header, rows = losses.table()
    assert header == ["iteration", "loss", "loss_box", "loss_mask"]
    assert math.isnan(rows[0][3]) and rows[1] == [6, 1, 2, 4] and rows[2] == [9, 1, 2, 7]
    assert losses.latest() == {"loss": 1.0, "loss_box": 2.0}
    losses.write(tmp_path)
    assert (
        (tmp_path / "losses.csv")
        .read_text()
        .startswith("iteration,loss,loss_box,loss_mask\n3,1,2,\n6,1,2,4\n")
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_divergence_is_noticed_before_it_is_saved(bad):
    losses = filled(3)
    losses.add({"loss": torch.tensor(bad), "loss_mask": torch.tensor(0.0)})
    with pytest.raises(InputError, match="not finite in iteration 4"):
        losses.state()


def test_the_table_is_written_with_the_time_of_the_processor_where_it_is_known(tmp_path):
    filled(5).write(tmp_path)
    assert (tmp_path / "losses.csv").read_text().startswith("iteration,loss,loss_mask\n1,0,0\n2,2,1\n")
    losses = Losses()
    for step in range(1500):
        losses.add({"loss": torch.tensor(1.0)}, cpu_seconds=0.5 * (step + 1))
    Losses(losses.state()).write(tmp_path)
    rows = (tmp_path / "losses.csv").read_text().splitlines()
    assert rows[:2] == ["iteration,loss,cpu_seconds", "3,1,1.5"] and rows[-1] == "1500,1,750"


def test_a_table_without_losses_is_one_line(tmp_path):
    (tmp_path / "losses.csv").write_text("iteration,time\n1,2\n")
    with pytest.raises(InputError, match="losses.csv: expected a table of losses"):
        loss_curve(tmp_path / "losses.csv")
    with pytest.raises(InputError, match="absent.csv: No such file"):
        loss_curve(tmp_path / "absent.csv")


def test_the_curve_shows_every_loss_of_the_table_and_is_always_the_same(tmp_path):
    filled(600).write(tmp_path)
    axes = loss_curve(tmp_path / "losses.csv").axes[0]
    bold, mask = axes.lines[-1], axes.lines[0]
    assert [line.get_label() for line in (bold, mask)] == ["loss", "loss_mask"]
    assert mask.get_ydata()[10] == 10 and bold.get_ydata()[0] == pytest.approx(24)  # mean of 0, 2 ... 48
    for name in ("a.png", "b.png"):
        arguments = ["--settings", "{}", "--losses", tmp_path / "losses.csv", "--output", tmp_path / name]
        subprocess.run([sys.executable, "-m", "gen4det.stages.loss_curve", *arguments], check=True)
    drawn = (tmp_path / "a.png").read_bytes()
    assert drawn.startswith(b"\x89PNG") and drawn == (tmp_path / "b.png").read_bytes()
