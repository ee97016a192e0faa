"""Numbers of the .tflite schema: operators, activations and paddings."""

from __future__ import annotations

ADD, AVERAGE_POOL_2D, CONV_2D, DEPTHWISE_CONV_2D, DEQUANTIZE = 0, 1, 3, 4, 6
FULLY_CONNECTED, MAX_POOL_2D, MUL, RELU, RELU6 = 9, 17, 18, 19, 21
RESHAPE, SOFTMAX, PAD, MEAN, DENSIFY = 22, 25, 34, 40, 124
SQUEEZE = 43

# Operators whose second input is the weights.
WEIGHTED = (CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED)

# ActivationFunctionType -> limits of the output.
INFINITY = float('inf')
ACTIVATIONS = {0: (-INFINITY, INFINITY), 1: (0.0, INFINITY), 2: (-1.0, 1.0), 3: (0.0, 6.0)}

SAME, VALID = 0, 1
