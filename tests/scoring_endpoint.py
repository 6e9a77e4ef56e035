"""Completions of a tiny model on loopback, with log-probabilities in the forms of vLLM, SGLang and llama.cpp."""

from __future__ import annotations

import threading
from typing import Any

import torch

from alignboard.models.loading import LoadedModel
from faulty_endpoint import FaultyEndpoint, Request


class ScoringEndpoint(FaultyEndpoint):
    """``form`` is vllm, sglang, llama.cpp or none; ``names`` are the adapters by what the server calls them."""

    def __init__(self, model: LoadedModel, form: str, names: dict[str, str | None]) -> None:
        super().__init__()
        self._model, self._form, self._names = model, form, names
        self._turn = threading.Lock()
        self.choice = self._answer

    def _answer(self, request: Request) -> dict[str, Any]:
        body, ids = request.body, request.body["prompt"]
        with self._turn, self._model.using(self._names[body["model"]]):
            logprobs = self._logprobs(ids)
            if body.get("max_tokens", 1) > 1:
                return {"text": self._written(list(ids), body["max_tokens"])}
        usage = {"prompt_tokens": len(ids), "completion_tokens": 1}
        choice: dict[str, Any] = {"text": "x", "finish_reason": "length", "usage": usage}
        return choice | getattr(self, f"_{self._form.replace('.', '_')}")(body, ids, logprobs)

    def _logprobs(self, ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            logits = self._model.model(input_ids=torch.tensor([ids])).logits[0]
        return torch.log_softmax(logits.float(), dim=-1)

    def _written(self, ids: list[int], limit: int) -> str:
        start = len(ids)
        while len(ids) < start + limit:
            ids.append(int(self._logprobs(ids)[-1].argmax()))
            if ids[-1] in self._model.end_tokens:
                break
        return str(self._model.tokenizer.decode(ids[start:], skip_special_tokens=True))

    def _none(self, _body: Any, _ids: Any, _logprobs: Any) -> dict[str, Any]:
        return {"logprobs": None}

    def _vllm(self, body: dict[str, Any], ids: list[int], logprobs: torch.Tensor) -> dict[str, Any]:
        if "prompt_logprobs" not in body:
            return {"logprobs": None}
        rows: list[Any] = [None]
        for place, token in enumerate(ids[1:]):
            rank = int((logprobs[place] > logprobs[place, token]).sum()) + 1
            rows.append({str(token): {"logprob": float(logprobs[place, token]), "rank": rank}})
        return {"logprobs": None, "prompt_logprobs": rows}

    def _sglang(
        self, body: dict[str, Any], ids: list[int], logprobs: torch.Tensor
    ) -> dict[str, Any]:
        if not body.get("echo"):
            return {"logprobs": None}
        own = [float(logprobs[place, token]) for place, token in enumerate(ids[1:])]
        tops = [{"?": float(row.max())} for row in logprobs]
        return {
            "logprobs": {
                "token_logprobs": [None, *own, float(logprobs[-1].max())],
                "top_logprobs": [None, *tops],
            }
        }

    def _llama_cpp(
        self, body: dict[str, Any], _ids: list[int], logprobs: torch.Tensor
    ) -> dict[str, Any]:
        best = int(logprobs[-1].argmax())
        token = int(next(iter(body.get("logit_bias", {str(best): 0}))))
        top = [{"id": best, "logprob": float(logprobs[-1, best])}]
        one = {"id": token, "logprob": float(logprobs[-1, token]), "top_logprobs": top}
        return {"logprobs": {"content": [one]}}
