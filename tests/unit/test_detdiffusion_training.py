"""Fine-tuning on eight toy images with a random model whose words have 32 numbers. Checks 3, 6, 7 and 10."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from gen4det.core.errors import InputError
from gen4det.engines.base import engine_settings
from gen4det.engines.detdiffusion.fit_generator import Learner, count_left_out
from gen4det.engines.detdiffusion.layouts import Layout, LayoutObject
from gen4det.engines.detdiffusion.posteriors import Posteriors
from gen4det.engines.detdiffusion.samples import Samples, token_ids
from gen4det.engines.detdiffusion.settings import Settings
from gen4det.engines.detdiffusion.vocabulary import extend_vocabulary
from gen4det.training.loop import train
from tiny_models import tiny_pipeline, tiny_unet

SIDE, WIDTH = 32, 32
CLASSES = {1: "cup", 4: "fish", 7: "cap"}


def settings_of(**generator) -> Settings:
    values = {
        "method": "detdiffusion",
        "detector": {"detector": "any"},
        "words": {"columns": 8, "rows": 8},
        "size": {"height": SIDE, "width": SIDE},
        "generator": {
            "steps": 200, "batch": 2, "parts": 1, "learning_rate": 3e-3, "warmup": 10, "precision": "float32",
            "checkpointing": False, "perception": {"channels": 16, "weight": 0.5},
        } | generator,
    }  # fmt: skip
    return engine_settings("detdiffusion", values, source="test")


def model(settings: Settings):
    """The tiny pipeline with words of 32 numbers, two levels and the settings' words."""
    pipeline = tiny_pipeline(layers=1)
    pipeline.unet = tiny_unet(
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
    )
    torch.manual_seed(2)
    shape = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 2}
    places = {"max_position_embeddings": 77, "vocab_size": len(pipeline.tokenizer)}
    pipeline.text_encoder = CLIPTextModel(CLIPTextConfig(num_hidden_layers=1, **shape, **places))
    extend_vocabulary(pipeline, settings.words, attributes=True)
    return pipeline


class Toys:
    """Images of three rectangles each, in memory; counts how often each is read."""

    def __init__(self, images: int = 8):
        rng, self.pixels, self.layouts, self.reads = np.random.default_rng(0), {}, [], Counter()
        for number in range(images):
            pixels, objects = rng.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8), []
            for place, (category, name) in enumerate(CLASSES.items()):
                x, y = (int(it) for it in rng.integers(0, SIDE - 14, 2))
                pixels[y : y + 12, x : x + 14, place] = 230
                box = (x, y, 14, 12)
                polygon = [[x, y, x + 14, y, x + 14, y + 12, x, y + 12]]
                objects.append(LayoutObject(category, name, box, ("easy", "hard")[number % 2], polygon))
            self.pixels[f"{number}.png"] = pixels
            self.layouts.append(Layout(number, f"{number}.png", SIDE, SIDE, tuple(objects)))

    def image(self, name: str) -> np.ndarray:
        self.reads[name] += 1
        return self.pixels[name]


def learner_of(toys: Toys | None = None, **generator) -> Learner:
    settings, toys = settings_of(**generator), toys or Toys()
    return Learner(model(settings), settings, toys.layouts, toys, list(CLASSES))


# --- 200 steps --------------------------------------------------------------------------------------


def fit(folder, steps: int) -> tuple[Learner, dict[str, np.ndarray]]:
    """A learner after some steps, and both losses step by step."""
    learner = learner_of()
    train(
        learner.modules,
        learner.step_loss,
        steps=steps,
        learning_rate=3e-3,
        warmup=10,
        work=folder,
        fingerprint={"test": 1},
        betas=(0.9, 0.999),
        seed=3,
    )
    columns, *rows = (line.split(",") for line in (folder / "losses.csv").read_text().splitlines())
    losses = {
        name: np.array([float(row[columns.index(name)]) for row in rows])
        for name in ("noise_loss", "perception_loss")
    }
    return learner, losses


def test_check_10_in_200_steps_on_eight_images_both_losses_fall(tmp_path):
    for name, values in fit(tmp_path, 200)[1].items():
        assert len(values) == 200 and values[-40:].mean() < 0.8 * values[:40].mean(), name


def test_check_10_the_same_seed_gives_the_same_weights(tmp_path):
    learners = [fit(tmp_path / name, 20)[0] for name in ("one", "other")]
    for first, other in zip(*(it.modules for it in learners), strict=True):
        pairs = zip(first.state_dict().values(), other.state_dict().values(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)


# --- the losses of a step ---------------------------------------------------------------------------


def plain_loss(learner: Learner) -> torch.Tensor:
    """Stable Diffusion's own loss of the batch that `step_loss` draws first, with nothing beside it."""
    rng = np.random.default_rng(0)
    samples = learner.draw(rng)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    vae, scheduler = learner.vae, learner.pipeline.scheduler
    pixels = torch.from_numpy(np.stack([sample.pixels for sample in samples])).permute(0, 3, 1, 2)
    with torch.no_grad():
        clean = vae.encode(pixels.float() / 127.5 - 1).latent_dist.sample(generator)
    clean = clean * vae.config.scaling_factor
    noise = torch.randn(clean.shape, generator=generator)
    t = torch.randint(len(scheduler.alphas_cumprod), (len(samples),), generator=generator)
    states = learner.text(
        token_ids(learner.pipeline.tokenizer, [it.prompt for it in samples])
    ).last_hidden_state
    predicted = learner.unet(scheduler.add_noise(clean, noise, t), t, states).sample
    return (predicted - noise).square().mean()


def gradients(learner: Learner, loss: torch.Tensor) -> list[torch.Tensor]:
    for module in learner.modules:
        module.zero_grad()
    loss.backward()
    return [p.grad.clone() for module in (learner.unet, learner.text) for p in module.parameters()]


def test_check_6_and_7_without_weights_and_lambda_loss_and_gradients_are_those_of_plain_fine_tuning():
    learner = learner_of(foreground=False, perception={"weight": 0})
    plain = plain_loss(learner)
    expected = gradients(learner, plain)
    found = learner.step_loss(0, np.random.default_rng(0))
    assert set(found) == {"noise_loss"}
    torch.testing.assert_close(found["noise_loss"], plain, rtol=1e-6, atol=1e-7)
    for own, theirs in zip(gradients(learner, found["noise_loss"]), expected, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-3, atol=1e-6)
    weighted = learner_of(perception={"weight": 0}).step_loss(0, np.random.default_rng(0))["noise_loss"]
    assert abs(float(weighted.detach() - plain.detach())) > 1e-5


def test_check_7_lambda_changes_gradients_of_unet_and_text_and_leaves_the_noise_loss():
    with_loss, without = learner_of(), learner_of(perception={"weight": 0})
    found = [it.step_loss(0, np.random.default_rng(0)) for it in (with_loss, without)]
    torch.testing.assert_close(found[0]["noise_loss"], found[1]["noise_loss"], rtol=1e-5, atol=1e-6)
    both = gradients(with_loss, sum(found[0].values())), gradients(without, found[1]["noise_loss"])
    for number, module in enumerate((with_loss.unet, with_loss.text)):
        start = number * len(list(with_loss.unet.parameters()))
        part = slice(start, start + len(list(module.parameters())))
        pairs = zip(*(it[part] for it in both), strict=True)
        assert any(not torch.allclose(*pair, atol=1e-5) for pair in pairs)
    assert all(p.grad is None for p in with_loss.vae.parameters())


# --- what is kept -----------------------------------------------------------------------------------


def test_an_image_is_read_and_encoded_once_and_the_losses_are_the_same_bits():
    toys = Toys()
    learner = learner_of(toys)
    first = [learner.step_loss(step, np.random.default_rng(step)) for step in range(12)]
    toys.reads.clear()
    again = [learner.step_loss(step, np.random.default_rng(step)) for step in range(12)]
    assert not toys.reads
    assert all(torch.equal(own[name], first[step][name]) for step, own in enumerate(again) for name in own)
    fresh = learner_of()  # as after a training was resumed: nothing is known
    for step in (11, 3):
        found = fresh.step_loss(step, np.random.default_rng(step))
        assert all(torch.equal(found[name], first[step][name]) for name in found)


def test_latents_of_more_images_than_fit_into_memory_are_not_kept():
    vae = tiny_pipeline(layers=1).vae
    images = np.random.default_rng(0).integers(0, 255, (3, SIDE, SIDE, 3), dtype=np.uint8)
    keys = [(0, False), (0, True), (5, False)]
    one = 2 * 4 * 4 * 4 * 4  # bytes of means and deviations of an image
    kept = Posteriors(vae, 6, (4, 4), limit=6 * 2 * one)
    forgetful = Posteriors(vae, 6, (4, 4), limit=6 * 2 * one - 1)
    assert kept.keeps and not forgetful.keeps
    results = [it(keys, list(images)) for it in (kept, forgetful)]
    for own, theirs in zip(*results, strict=True):
        torch.testing.assert_close(own, theirs)
    assert all(key in kept and key not in forgetful for key in keys) and (5, True) not in kept
    again = kept(keys[::-1], [None] * 3)
    assert all(torch.equal(own.flip(0), theirs) for own, theirs in zip(again, results[0], strict=True))
    with torch.no_grad():
        expected = vae.encode(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1).latent_dist
    torch.testing.assert_close(results[0][0], expected.mean)
    torch.testing.assert_close(results[0][1], expected.std)


# --- samples ----------------------------------------------------------------------------------------


class Everything:
    """All images are known: none is read."""

    def __contains__(self, key) -> bool:
        return True


def test_check_3_of_ten_thousand_prompts_a_tenth_is_empty_and_half_of_the_images_are_mirrored():
    settings, toys = settings_of(perception={"weight": 0}, foreground=False), Toys(1)
    layout = replace(toys.layouts[0], objects=toys.layouts[0].objects[:1])
    samples = Samples(
        [layout], toys, list(CLASSES), model(settings).tokenizer, settings.words, settings.generator,
        (SIDE, SIDE), (4, 4), known=Everything(),
    )  # fmt: skip
    drawn = [samples(0, rng) for rng in np.random.default_rng(0).spawn(10_000)]
    assert not toys.reads
    assert sum(it.prompt == "" for it in drawn) / len(drawn) == pytest.approx(0.10, abs=0.01)
    assert sum(it.key[1] for it in drawn) / len(drawn) == pytest.approx(0.5, abs=0.02)


# --- bad input --------------------------------------------------------------------------------------


def test_more_objects_than_the_window_holds_are_dropped_whole_and_counted(caplog):
    settings = settings_of()
    pipeline, (box,) = model(settings), [(2, 2, 10, 10)]
    twenty = Layout(1, "1.png", SIDE, SIDE, (LayoutObject(1, "cup", box, "easy"),) * 20)
    few = Layout(2, "2.png", SIDE, SIDE, (LayoutObject(1, "cup", box, "easy"),) * 3)
    # Start, end and the opening, here of 8 tokens, leave 67 of 77: 16 objects of four.
    assert count_left_out([few, few], settings, pipeline) == 0 and not caplog.records
    assert count_left_out([few, twenty, twenty], settings, pipeline) == 8
    assert "8 objects do not fit" in caplog.text


def test_a_class_name_that_is_spelled_with_many_tokens_takes_the_place_of_other_objects():
    settings = settings_of()
    pipeline, box = model(settings), (2, 2, 10, 10)
    long = LayoutObject(1, "zqxwvkj" * 2, box, "easy")  # spelled letter by letter: 14 tokens
    short = LayoutObject(1, "cup", box, "easy")
    mixed = Layout(1, "1.png", SIDE, SIDE, (long, long, *[short] * 10))
    # Of 67 tokens the first two take 34, eight more 32. Twelve objects of one token each would take 48.
    assert count_left_out([mixed], settings, pipeline) == 2
    with pytest.raises(InputError, match="shorter name"):
        endless = LayoutObject(1, "zqxwvkj" * 20, box, "easy")
        count_left_out([Layout(1, "1.png", SIDE, SIDE, (endless,))], settings, pipeline)
