# SPDX-License-Identifier: Apache-2.0
"""What a server answers when it cannot do what was asked."""


class ApiError(Exception):
  """A refusal, as OpenAI's clients read it.

  Args:
    status: of HTTP.
    message: a sentence that says what to do.
    param: the field of the request that is at fault, if one is.
    code: machine-readable name of the error.
  """

  def __init__(
    self,
    status: int,
    message: str,
    param: str | None = None,
    code: str | None = None,
  ):
    super().__init__(message)
    self.status, self.param, self.code = status, param, code

  def body(self) -> dict:
    """Return the answer."""
    kind = "server_error" if self.status >= 500 else "invalid_request_error"
    kind = "rate_limit_error" if self.status == 429 else kind
    error = dict(
      message=str(self),
      type=kind,
      param=self.param,
      code=self.code,
    )
    return {"error": error}
