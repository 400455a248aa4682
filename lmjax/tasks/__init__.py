# SPDX-License-Identifier: Apache-2.0
"""What is learned, by name; to add a task, write its file and a line here."""

from lmjax.tasks.language_modeling import LanguageModeling

TASKS = {"language_modeling": LanguageModeling}
