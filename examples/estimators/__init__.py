"""Bias and variance of the meta-gradients: every surrogate against the exact gradient.

    python -m examples.estimators --out docs/estimators.md

The expected return of a softmax policy with a table of logits on a tabular task can be computed and
differentiated exactly, and so can the meta-objective. The estimators are those of metarl, on three
kinds of data:

- every trajectory, weighted with its probability: infinitely many episodes, no sampling noise;
- every data set of a few episodes, weighted in the same way: the exact mean of an estimator;
- episodes that were played: bias and variance as in training.

Returns are per step here, J(θ) = E[sum of rewards] / T with discount 1, because surrogates average
over steps: the gradient of each is -∇J. A step of the inner loop then leads to θ + lr ∇J(θ), and

    V(θ) = J(θ + lr ∇J(θ))                    adapted on infinitely many episodes,
    V_E(θ) = E[J(θ + lr g(D, θ))]             adapted on data D of E episodes, g their estimate

are the two meta-objectives; V_E becomes V as E grows. V's gradient is what the second derivatives
of the inner surrogates are to provide, V_E's is what E-MAML estimates.
"""
