"""LeNet-300-100 on MNIST: the smallest complete example of sparse training.

`mnist_train_eval` trains and evaluates, `mnist_data` finds the digits,
`compression` tells how small the network gets once its unconnected pixels and
neurons are dropped, and `mask_records` with `visualize_mask_records` keep the
masks of a run and turn them into pictures.
"""
