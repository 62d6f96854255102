"""What the worker can be asked to do. It lies beside the submission in the sandbox."""

import numpy as np
from registry import Refused, member, operation


@operation
def call(args, arrays):
    """Call a function of the submission with the arrays, and then with args["numbers"]."""
    __import__("linear_regression")
    function = member("linear_regression", args["name"])
    value = function(*arrays.values(), *args["numbers"])
    if not (isinstance(value, np.ndarray) and value.dtype == np.float64):
        raise Refused(f"{args['name']} returned a {type(value).__name__}, not a float64 array")
    return None, {"value": value}
