"""What it means: boards, their audit and their plots."""
