"""Plans, the graph of jobs behind them, and the processes that do the jobs."""
