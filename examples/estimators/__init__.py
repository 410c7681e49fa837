"""How good are the meta-gradients? Every surrogate against the exact one, on tabular tasks.

    python -m examples.estimators --out docs/estimators.md

A tabular task and a softmax policy with a table of logits have an expected return that can be
computed and differentiated exactly, and so has what meta-learning maximises. The estimators are the
project's own code, on three kinds of data:

- every trajectory, weighted with its probability: infinitely many episodes, no sampling noise;
- every data set of a few episodes, weighted likewise: the exact mean of an estimator on few data;
- episodes that were played: bias and variance as they are met in training.

Returns are per step here, J(θ) = E[sum of rewards] / T with discount 1, because surrogates average
over steps: the gradient of each is -∇J. A step of the inner loop then leads to θ + lr ∇J(θ), and

    V(θ) = J(θ + lr ∇J(θ))                    adapted on infinitely many episodes,
    V_E(θ) = E[J(θ + lr g(D, θ))]             adapted on data D of E episodes, g their estimate

are the two meta-objectives; V_E becomes V as E grows. V's gradient is what the second derivatives
of the inner surrogates are to provide, V_E's is what E-MAML estimates.
"""
