"""metarl.core.params: dicts of tensors, as vectors and as stacks."""

import torch

from metarl.core.params import concatenate, flatten, leaves, stack, total, unflatten


def test_flatten_and_unflatten_are_inverse(tiny_params):
    vector = flatten(tiny_params)
    assert vector.shape == (34,)
    back = unflatten(vector, tiny_params)
    assert list(back) == list(tiny_params)
    assert all(torch.equal(back[name], tiny_params[name]) for name in back)


def test_flatten_is_in_the_order_of_the_dict():
    params = {"b": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "a": torch.tensor(5.0)}
    assert flatten(params).tolist() == [1, 2, 3, 4, 5]
    back = unflatten(torch.arange(5.0), params)
    assert {name: value.tolist() for name, value in back.items()} == {"b": [[0, 1], [2, 3]], "a": 4}
    assert concatenate(value + 1 for value in params.values()).tolist() == [2, 3, 4, 5, 6]


def test_stack_repeats_without_a_copy():
    params = {"x": torch.tensor([[1.0, 2.0]]), "n": torch.tensor(3.0)}
    stacked = stack(params, 3)
    assert stacked["x"].tolist() == [[[1, 2]]] * 3
    assert stacked["n"].tolist() == [3, 3, 3]
    assert stacked["x"].data_ptr() == params["x"].data_ptr()


def test_leaves_are_new_graphs_over_the_same_numbers():
    start = torch.ones(2, requires_grad=True)
    params = {"x": 3 * start}
    found = leaves(params)
    assert found["x"].is_leaf
    assert found["x"].requires_grad
    assert torch.equal(found["x"], params["x"])
    assert params["x"].grad_fn is not None, "the caller's tensor keeps its graph"


def test_total_adds_in_order():
    """1 is lost against 1e8 in float32, unless what cancels it came before."""
    big, one = torch.tensor(1e8), torch.tensor(1.0)
    assert total([big, -big, one]).item() == 1.0
    assert total([big, one, -big]).item() == 0.0
