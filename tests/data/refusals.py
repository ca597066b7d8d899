"""What the tests of refusals share."""

from collections.abc import Callable

import pytest

from fcnseg.errors import InputError


def complaint(call: Callable[[], object]) -> str:
    """The one-line message of the InputError that `call` must raise."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message
