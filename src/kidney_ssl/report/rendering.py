"""Templates filled in, and tables as Markdown."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from kidney_ssl.report.table_cells import Table


def render(template: str, package: str = "kidney_ssl.report", /, **content: Any) -> str:
    """Fill a template of a package's folder `templates` in; words are escaped in HTML alone."""
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = lambda text: Markup("_<wbr>").join(text.split("_"))
    return environment.get_template(template).render(**content)


def markdown_table(table: Table) -> str:
    """Write a table as Markdown, without the columns that the page hides at first."""
    shown = [place for place, column in enumerate(table.columns) if column.shown]
    lines = [[table.columns[place].label for place in shown]]
    lines.append(["---:" if table.columns[place].numeric else "---" for place in shown])
    lines += [[row[place].text for place in shown] for row in table.rows]
    return f"**{table.caption}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
