"""AlpacaEval as others published it: reproduced, audited, bridged."""
