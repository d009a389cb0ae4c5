"""What the contract types and the near-duplicates of the sample are; the deals themselves are in deals.csv.

Columns of deals.csv: P is the provider and C its counterparty (full name, legal form, short name, city),
field what the provider supplies, cfield the counterparty's business, filed the party that filed the contract.
"""

# type -> provider's role, counterparty's role, what is supplied, what a licence covers, the party bound by
# restrictions, and the tags of the phrasings that fit the type.
TYPES = {
    "License Agreement": ("Licensor", "Licensee", "Licensed Products", "Licensed Technology", "C", "rt"),
    "Supply Agreement": ("Supplier", "Buyer", "Products", "Product Documentation", "P", "g"),
    "Distributor Agreement": ("Company", "Distributor", "Products", "Marks", "C", "gd"),
    "Reseller Agreement": ("Vendor", "Reseller", "Products", "Software", "C", "gdth"),
    "Service Agreement": ("Provider", "Client", "Services", "Service Tools", "P", "s"),
    "Consulting Agreement": (
        "Consultant",
        "Company",
        "Consulting Services",
        "Background Materials",
        "P",
        "s",
    ),
    "Development Agreement": ("Developer", "Sponsor", "Deliverables", "Background Technology", "P", "st"),
    "Hosting Agreement": ("Host", "Customer", "Hosting Services", "Hosted Software", "P", "sthm"),
    "Franchise Agreement": ("Franchisor", "Franchisee", "Branded Products", "Marks and System", "C", "rf"),
    "Maintenance Agreement": (
        "Contractor",
        "Owner",
        "Maintenance Services",
        "Diagnostic Software",
        "P",
        "stm",
    ),
}

# What a licence covers, and what "goods" are, by the first word of the document name.
LICENSED = {
    "Patent": ("Licensed Patents", "Licensed Products"),
    "Software": ("Licensed Software", "Deliverables"),
    "Trademark": ("Licensed Marks", "Licensed Products"),
    "Content": ("Licensed Works", "Licensed Products"),
}

# Near-duplicates on purpose: number of the deal (from 0), what changes, clauses dropped, clauses added.
# First an amended and restated version of the dairy supply agreement, filed by the other party; then two more
# franchises on the bakehouse template, so that with the first they make a trio.
DUPLICATES = [
    (
        5,
        {"doc": "Amended and Restated Supply Agreement", "date": "2012-06-18", "filed": "C"},
        ["mfn", "rofr"],
        ["price", "renew", "notice"],
    ),
    (
        33,
        {
            "C_full": "Larkspur Commons Dining, LLC",
            "C_form": "a Kansas limited liability company",
            "C_short": "Larkspur Commons",
            "C_city": "Topeka, Kansas",
            "territory": "Shawnee County, Kansas",
            "date": "2011-07-11",
        },
        [],
        [],
    ),
    (
        33,
        {
            "C_full": "Ozark Lamplight Foods, Inc.",
            "C_form": "a Missouri corporation",
            "C_short": "Ozark Lamplight",
            "C_city": "Springfield, Missouri",
            "territory": "Greene County, Missouri",
            "date": "2012-09-05",
        },
        ["rofr"],
        ["nse"],
    ),
]

PEOPLE = """Adela Marchbanks|Rowan Tillinghast|Imogen Sayle|Desmond Okparaku|Celia Varnholt|Theodore Quist
Marisol Etxarri|Leopold Grange|Hanneke Droste|Samuel Birdwhistell|Priya Nandakar|Owen Lathbury|Beatrix Colm
Farid Nasserian|Junia Pettibone|Caspar Hollins|Mireille Dufand|Amos Trevanion""".replace("\n", "|").split("|")

OFFICES = [
    "President",
    "Chief Executive Officer",
    "Chief Operating Officer",
    "Vice President, Finance",
    "Director",
    "General Counsel",
    "Managing Director",
    "Senior Vice President",
]
