"""The preference losses: closed forms, invariants, and TRL's own values through its trainer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from alignboard.registry import RegistryError, names, register  # noqa: E402
from alignboard.training.losses import PairLogps  # noqa: E402
from alignboard.training.methods import loss_spec  # noqa: E402

LOSSES = tuple(one for one in names("loss") if not (loss_spec(one).rated or loss_spec(one).head))
NEEDED: dict[str, dict[str, Any]] = {
    "simpo": {"gamma": 0.5},
    "r-dpo": {"length_penalty": 0.01},
    "robust-dpo": {"label_smoothing": 0.1},
}
"""what a recipe has to give beside beta"""


def settings(name: str, beta: float = 0.5, **given: Any) -> dict[str, Any]:
    """The complete parameters of a loss."""
    return loss_spec(name).complete(name, {"beta": beta, **NEEDED.get(name, {}), **given})


def value(name: str, logps: PairLogps, beta: float = 0.5, **given: Any) -> Any:
    """The loss per pair."""
    return loss_spec(name).load()(logps, **settings(name, beta, **given))


def pair(
    chosen: float, rejected: float, ref_chosen: float = -5.0, ref_rejected: float = -6.0
) -> PairLogps:
    numbers = (chosen, rejected, 4.0, 8.0, ref_chosen, ref_rejected)
    return PairLogps(*(torch.tensor([x], dtype=torch.float64) for x in numbers))


def logistic(x: float) -> float:
    return math.log(1 + math.exp(-x))


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_where_policy_is_reference_the_loss_is_the_closed_form() -> None:
    checked = 0
    for name in LOSSES:
        spec = loss_spec(name)
        for beta in (0.1, 0.5, 5.0):
            if spec.at_start is not None:
                expected = spec.at_start(settings(name, beta))
                assert value(name, pair(-5.0, -6.0), beta).item() == pytest.approx(expected), name
                checked += 1
    assert checked >= 45
    assert loss_spec("simpo").at_start is None
    for link in ("forward_kl", "js_divergence", "alpha_divergence"):
        assert value("dpo", pair(-5, -6), divergence=link).item() == pytest.approx(math.log(2))


# h_w = 1, h_l = -2, |y_w| = 4, |y_l| = 8, beta = 0.5, so z = 1.5; log pi(y_w)/4 = log pi(y_l)/8 = -1.
WORKED: list[tuple[str, dict[str, Any], float]] = [
    ("dpo", {}, logistic(1.5)),
    # -log sigma(-z) = z - log sigma(z)
    ("dpo", {"label_smoothing": 0.1}, logistic(1.5) + 0.1 * 1.5),
    # links: (1 - e^-1) - (1 - e^2); alpha = 2: (e^1 - 1) - (e^-2 - 1)
    ("dpo", {"divergence": "forward_kl"}, logistic(0.5 * (math.e**2 - 1 / math.e))),
    ("dpo", {"divergence": "js_divergence"}, logistic(0.5 * math.log(sigma(1) / sigma(-2)))),
    (
        "dpo",
        {"divergence": "alpha_divergence", "alpha": 2.0},
        logistic(0.5 * (math.e - math.e**-2)),
    ),
    ("robust-dpo", {}, (0.9 * logistic(1.5) - 0.1 * logistic(-1.5)) / 0.8),
    ("ipo", {}, (1 / 4 + 2 / 8 - 1) ** 2),
    ("ipo-sum", {}, (3 - 1) ** 2),
    ("hinge", {}, 0.0),
    ("gpo-exponential", {}, math.exp(-1.5)),
    ("gpo-truncated", {}, 0.0),
    ("gpo-savage", {}, sigma(-1.5) ** 2),
    ("gpo-squared", {}, 0.25),
    ("dpo-norm", {}, logistic(0.5 * (1 / 4 + 2 / 8))),
    ("r-dpo", {}, logistic(1.5 + 0.01 * (4 - 8))),
    ("simpo", {}, logistic(-0.5)),
    ("cpo", {}, logistic(0.5 * (-4 + 8)) + 1.0),
    ("cpo", {"nll_weight": 0.0}, logistic(0.5 * (-4 + 8))),
    ("orpo", {}, 1.0 + 0.5 * math.log(2)),
    (
        "exo",
        {"label_smoothing": 0.1},
        sigma(1.5) * math.log(sigma(1.5) / 0.9) + sigma(-1.5) * math.log(sigma(-1.5) / 0.1),
    ),
    ("nca", {}, logistic(0.5) + 0.5 * logistic(-0.5) + 0.5 * logistic(1.0)),
    ("sppo", {}, (1 - 1) ** 2 + (-2 + 1) ** 2),
    ("apo-zero", {}, sigma(-0.5) + sigma(-1.0)),
    ("apo-down", {}, sigma(0.5) + sigma(-1.5)),
    ("bco", {}, logistic(0.5) + logistic(1.0)),
    (
        "discopop",
        {"tau": 1.0},
        logistic(1.5) * (1 - sigma(1.5)) + math.exp(-1.5) * sigma(1.5),
    ),
]


@pytest.mark.parametrize(("name", "given", "expected"), WORKED)
def test_by_hand(name: str, given: dict[str, Any], expected: float) -> None:
    assert value(name, pair(-4.0, -8.0), **given).item() == pytest.approx(expected)


def test_every_loss_has_a_worked_value() -> None:
    ours = {name for name in LOSSES if loss_spec(name).function.startswith("alignboard.")}
    assert {name for name, _, _ in WORKED} == ours


@pytest.mark.parametrize("name", sorted({name for name, _, _ in WORKED}))
def test_gradients_are_the_differences(name: str) -> None:
    numbers = [torch.tensor([x, x - 1.5], dtype=torch.float64) for x in (-4.1, -7.9)]
    rest = pair(0, 0)
    fixed = [
        getattr(rest, key).expand(2)
        for key in ("chosen_tokens", "rejected_tokens", "ref_chosen", "ref_rejected")
    ]

    def total(chosen: Any, rejected: Any) -> Any:
        return value(name, PairLogps(chosen, rejected, *fixed)).sum()

    assert torch.autograd.gradcheck(total, [x.requires_grad_() for x in numbers])


@pytest.mark.parametrize("name", ["dpo", "simpo", "ipo", "hinge", "orpo", "cpo", "nca", "apo-zero"])
def test_raising_the_chosen_lowers_the_loss(name: str) -> None:
    better, worse = (value(name, pair(c, -7.0), 0.2).item() for c in (-4.0, -4.5))
    assert better < worse


def test_a_link_is_reverse_kl_at_alpha_1() -> None:
    plain = value("dpo", pair(-4.0, -8.0)).item()
    near = value("dpo", pair(-4.0, -8.0), divergence="alpha_divergence", alpha=1 + 1e-5).item()
    assert near == pytest.approx(plain, rel=1e-4)


def test_far_from_the_reference_no_loss_is_infinite() -> None:
    for name in LOSSES:
        for chosen, rejected in ((-900.0, -0.01), (-0.01, -900.0)):
            assert math.isfinite(value(name, pair(chosen, rejected), 1.0).item()), name


def test_simpo_is_blind_to_the_reference() -> None:
    assert value("simpo", pair(-4, -8)).item() == value("simpo", pair(-4, -8, -1, -99)).item()


def test_a_missing_reference_is_an_error() -> None:
    x = torch.zeros(2)
    with pytest.raises(ValueError, match="reference"):
        value("dpo", PairLogps(x, x, x + 3, x + 3))


def test_no_loss_takes_the_name_of_another() -> None:
    with pytest.raises(RegistryError, match="registered twice"):
        register("loss", "dpo", "their_losses:theirs")


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama after a handful of steps: any weights will do here."""
    from alignboard.demo import tiny

    config = tiny.PretrainConfig(steps=3, n_documents=200)
    return tiny.build(
        "llama", tmp_path_factory.mktemp("losses") / "tiny-llama", seed=0, config=config
    )


def _trainer(folder: Path, tiny: Path, name: str, given: dict[str, Any], *, own: bool) -> Any:
    """A trainer of a policy that has left its reference, with TRL's loss or with ours."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    from alignboard.demo import world
    from alignboard.training.pairs import PreferencePair, preference_rows
    from alignboard.training.preference import PreferenceTrainer

    set_seed(0)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False
    )
    base: Any = AutoModelForCausalLM.from_pretrained(tiny)
    pairs = [
        PreferencePair(
            p, f"{world.parse(p).answer}.", "that is easy: nothing. i hope that it helps!", 1, 0
        )
        for p in world.prompts("preference", 8, seed=0)
    ]
    ours = settings(name, 0.5, **given)
    theirs = {
        "label_smoothing": ours.get("label_smoothing"),
        "discopop_tau": ours.get("tau"),
        "f_divergence_type": ours.get("divergence"),
        "f_alpha_divergence_coef": ours.get("alpha"),
    }
    arguments = DPOConfig(
        output_dir=str(folder),
        loss_type=[loss_spec(name).trl_name or "sigmoid"],
        beta=0.5,
        per_device_train_batch_size=8,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
        **{key: one for key, one in theirs.items() if one is not None},
    )
    shared: dict[str, Any] = {
        "model": get_peft_model(base, config),
        "args": arguments,
        "train_dataset": Dataset.from_list(preference_rows(pairs)),
        "processing_class": AutoTokenizer.from_pretrained(tiny),
    }
    if own:
        return PreferenceTrainer(**shared, loss=loss_spec(name), settings=ours)
    return DPOTrainer(**shared)


def _value_and_gradient(trainer: Any) -> tuple[float, Any]:
    model = trainer.model.eval()
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    trained = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return loss.item(), torch.cat(trained)


IN_TRL: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in LOSSES if loss_spec(name).trl_name),
    ("dpo", {"divergence": "forward_kl"}),
    ("dpo", {"divergence": "js_divergence"}),
    ("hinge", {"divergence": "alpha_divergence", "alpha": 1.5}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "given"), IN_TRL)
def test_value_and_gradient_are_trls(
    tmp_path: Path, tiny_llama: Path, name: str, given: dict[str, Any]
) -> None:
    (theirs, their_gradient), (ours, our_gradient) = (
        _value_and_gradient(_trainer(tmp_path / str(own), tiny_llama, name, given, own=own))
        for own in (False, True)
    )
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert our_gradient.norm() > 0
    assert (our_gradient - their_gradient).norm() <= 1e-5 * their_gradient.norm()


def _both_gradients(loss: Any, chosen: Any, rejected: Any) -> tuple[float, Any]:
    found = torch.autograd.grad(loss, (chosen, rejected))
    return loss.item(), torch.stack(found)


@pytest.mark.parametrize("method", ["cpo", "simpo", "orpo"])
@pytest.mark.parametrize(("chosen", "rejected"), [(-6.0, -9.0), (-30.0, -4.0), (-0.5, -0.4)])
def test_value_and_gradient_are_those_of_trls_experimental_trainers(
    method: str, chosen: float, rejected: float
) -> None:
    """At one pair per micro-batch: there the NLL over tokens is the mean per sequence."""
    from types import SimpleNamespace

    cpo = pytest.importorskip("trl.experimental.cpo.cpo_trainer").CPOTrainer
    orpo = pytest.importorskip("trl.experimental.orpo.orpo_trainer").ORPOTrainer
    n_won, n_lost = 4.0, 8.0
    won, lost = (
        torch.tensor(x, dtype=torch.float32, requires_grad=True) for x in (chosen, rejected)
    )
    beta, gamma = 0.7, 0.4
    theirs = SimpleNamespace(
        alpha=0.0,
        beta=beta,
        simpo_gamma=gamma,
        label_smoothing=0.0,
        loss_type="simpo" if method == "simpo" else "sigmoid",
        accelerator=SimpleNamespace(device="cpu"),
    )
    nll = -won / n_won
    if method == "orpo":
        expected = nll - orpo.odds_ratio_loss(theirs, won / n_won, lost / n_lost)[0]
    elif method == "simpo":  # cpo_alpha: 0
        expected = cpo.cpo_loss(theirs, won / n_won, lost / n_lost)[0]
    else:
        expected = cpo.cpo_loss(theirs, won, lost)[0] + nll
    lengths = torch.tensor([n_won]), torch.tensor([n_lost])
    logps = PairLogps(won.reshape(1), lost.reshape(1), *lengths)
    given = {"gamma": gamma} if method == "simpo" else {}
    ours = value(method, logps, beta, **given)[0]
    (a, a_gradient), (b, b_gradient) = (
        _both_gradients(loss, won, lost) for loss in (expected, ours)
    )
    assert b == pytest.approx(a, rel=1e-5)
    assert torch.allclose(a_gradient, b_gradient, rtol=1e-4, atol=1e-7)


def test_the_table_of_methods_is_the_registrys() -> None:
    import subprocess
    import sys

    text = (Path(__file__).parents[2] / "docs/training.md").read_text()
    shown = text.split("methods_table -->\n")[1].split("<!-- end -->")[0].strip()
    # In a process of its own: other tests register losses.
    code = "from alignboard.training.methods import methods_table; print(methods_table())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == shown
