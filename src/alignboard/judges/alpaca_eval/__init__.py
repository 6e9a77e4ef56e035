"""AlpacaEval's evaluator configurations, prompts and parsers."""
