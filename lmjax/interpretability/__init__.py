# SPDX-License-Identifier: Apache-2.0
"""Which tokens a model looks at, and which move what it says.

To let another task be explained, write what makes an `Explanation` of a text in
explainers.py and name it there.
"""
