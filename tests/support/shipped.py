"""What the catalog is shipped with. Pages of one's own beside these are tested by `./livoa catalog check`, not here."""

CAPABILITIES = (
    "ads.set_budget",
    "crm.find_buyers",
    "insights.summarise",
    "lakehouse.report",
    "mail.send",
    "marketing.compare_periods",
    "marketing.query_performance",
    "mmm.allocate_budget",
    "mmm.fit",
    "rag.search",
    "rates.lookup",
)
