# SPDX-License-Identifier: Apache-2.0
"""Errors in the format of the OpenAI API."""


class ApiError(Exception):
  """An error response that clients of the OpenAI API understand.

  Args:
    status: HTTP status.
    message: one sentence that tells the client what to do.
    param: the invalid field of the request; None if it is not one field.
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
    """Return the JSON body of the response."""
    kind = "server_error" if self.status >= 500 else "invalid_request_error"
    kind = "rate_limit_error" if self.status == 429 else kind
    error = dict(
      message=str(self),
      type=kind,
      param=self.param,
      code=self.code,
    )
    return {"error": error}
