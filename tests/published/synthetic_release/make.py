"""Make the synthetic release: three models, a baseline and calibration files, with goldens by upstream's own code.

``python tests/published/synthetic_release/make.py`` writes the files beside this one. Texts, verdicts and difficulties
are drawn from a seed; the goldens are what ``alpaca_eval`` 0.6.6 computes of them
(``get_length_controlled_winrate``), so that the agreement with upstream can be checked where the released AlpacaEval
files are not at hand.
"""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
JUDGE = "weighted_alpaca_eval_gpt4_turbo"
BASELINE = "reference"
# name: (quality, words per response, whether verdicts are whole numbers)
MODELS = {
    "verbose": (0.3, 60, False),
    "concise": (-0.4, 18, False),
    "decided": (0.1, 35, True),
}
N = 120
COLUMNS = [
    *("model", "preference", "index", "std_delta_len"),
    *("instruction_difficulty", "not_gamed_baseline"),
]
TEXT = "the a model answers with words that are drawn one after another until it ends"
WORDS = TEXT.split()


def text(rng: np.random.Generator, words: float) -> str:
    """A text of about ``words`` words."""
    return " ".join(rng.choice(WORDS, size=1 + rng.poisson(words))).capitalize() + "."


def expit(z: Any) -> Any:
    """The logistic function."""
    return 1 / (1 + np.exp(-z))


def verdicts(
    rng: np.random.Generator, quality: float, difference: np.ndarray, difficulty: np.ndarray
) -> np.ndarray:
    """Probabilities that the model's response wins, of ten decimals as in the released files."""
    mean = expit(quality + 0.8 * np.tanh(difference / difference.std()) + 0.6 * difficulty)
    return np.round(rng.beta(2 * mean, 2 * (1 - mean)), 10)


def main() -> None:
    """Write results, calibration and goldens."""
    rng = np.random.default_rng(20261128)
    difficulty = rng.normal(size=N)
    instructions = [f"Synthetic instruction {number}." for number in range(N)]
    reference = [text(rng, 30) for _ in range(N)]
    write_outputs(BASELINE, instructions, reference)
    write_calibration(rng, difficulty)
    for name, (quality, words, whole) in MODELS.items():
        outputs = [text(rng, words) for _ in range(N)]
        write_outputs(name, instructions, outputs)
        difference = np.array([len(a) - len(b) for a, b in zip(outputs, reference, strict=True)])
        preference = verdicts(rng, quality, difference, difficulty)
        rows = [
            {
                "instruction": instructions[i],
                "output_1": reference[i],
                "generator_1": BASELINE,
                "dataset": "synthetic",
                "output_2": outputs[i],
                "generator_2": name,
                "annotator": JUDGE,
                "preference": 1 + float(np.round(preference[i]) if whole else preference[i]),
            }
            for i in range(N)
        ]
        write_json(FOLDER / "results" / name / JUDGE / "annotations.json", rows)
    write_json(FOLDER / "goldens.json", {name: golden(name) for name in MODELS})


def write_outputs(name: str, instructions: list[str], outputs: list[str]) -> None:
    """A model's outputs in AlpacaEval's layout."""
    rows = [
        {"dataset": "synthetic", "instruction": question, "output": output, "generator": name}
        for question, output in zip(instructions, outputs, strict=True)
    ]
    write_json(FOLDER / "results" / name / "model_outputs.json", rows)


def write_calibration(rng: np.random.Generator, difficulty: np.ndarray) -> None:
    """The rows of the gamed baseline, and one difficulty per instruction."""
    folder = FOLDER / "length_control"
    folder.mkdir(exist_ok=True)
    with (folder / "df_gamed.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for style, shift in (("verbose", -1.0), ("concise", 1.0)):
            lengths = rng.normal(shift, 1.0, size=N)
            rates = expit(-0.7 * np.tanh(lengths) + 0.5 * difficulty)
            for i in range(N):
                rate = float(np.round(rng.beta(3 * rates[i], 3 * (1 - rates[i])), 10))
                row = [f"{BASELINE}_{style}", rate, i, float(lengths[i]), float(difficulty[i])]
                table.writerow([*row, False])
    with (folder / "instruction_difficulty.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["index", "instruction_difficulty"])
        table.writerows([i, float(d)] for i, d in enumerate(difficulty))


def golden(name: str) -> dict[str, float]:
    """What upstream computes of a model's annotations."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from alpaca_eval.metrics import glm_winrate

        fits: list[Any] = []
        fit = glm_winrate.fit_LogisticRegressionCV
        glm_winrate.fit_LogisticRegressionCV = lambda *a, **k: fits.append(fit(*a, **k)) or fits[-1]
        glm_winrate.hf_hub_download = lambda **_: str(FOLDER / "length_control" / "df_gamed.csv")
        path = FOLDER / "results" / name / JUDGE / "annotations.json"
        found = glm_winrate.get_length_controlled_winrate(
            pd.DataFrame(json.loads(path.read_text())),
            save_weights_dir=None,
            is_warn_extreme_changes=False,
        )
        glm_winrate.fit_LogisticRegressionCV = fit
    golden = {key: float(value) for key, value in found.items() if not isinstance(value, str)}
    return golden | {"C": float(np.ravel(fits[-1].C_)[0])}


def write_json(path: Path, content: object) -> None:
    """``content`` as JSON, a line per row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=0) + "\n")


if __name__ == "__main__":
    main()
