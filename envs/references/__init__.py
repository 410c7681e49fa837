"""What agents whose behaviour is known exactly reach on the families of small, finite problems.

`gridworld`, `bandit` and `tabular` have a module each: what an agent reaches that is optimal given
what it can know (Bayes-optimal) where that can be computed, an agent that knows the task (the
oracle), and agents that sample a task from their posterior or follow a rule. All returns are
undiscounted.
"""
