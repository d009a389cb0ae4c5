"""The invented deals behind the sample contracts: who contracts with whom, about what, where and when.

One line a deal, fields separated by " | ":
type | document name | provider | its form | short name | its city | counterparty | its form | short name | its city |
what the provider supplies | the counterparty's business | territory | law | date (ISO) | who filed it (P or C)
"""

# type -> (provider's role, counterparty's role, what is supplied, what a licence covers, restricted party, phrasing tags)
TYPES = {
    "License Agreement": ("Licensor", "Licensee", "Licensed Products", "Licensed Technology", "C", "rt"),
    "Supply Agreement": ("Supplier", "Buyer", "Products", "Product Documentation", "P", "g"),
    "Distributor Agreement": ("Company", "Distributor", "Products", "Marks", "C", "gd"),
    "Reseller Agreement": ("Vendor", "Reseller", "Products", "Software", "C", "gdth"),
    "Service Agreement": ("Provider", "Client", "Services", "Service Tools", "P", "sh"),
    "Consulting Agreement": ("Consultant", "Company", "Consulting Services", "Background Materials", "P", "s"),
    "Development Agreement": ("Developer", "Sponsor", "Deliverables", "Background Technology", "P", "st"),
    "Hosting Agreement": ("Host", "Customer", "Hosting Services", "Hosted Software", "P", "sth"),
    "Franchise Agreement": ("Franchisor", "Franchisee", "Branded Products", "Marks and System", "C", "rf"),
    "Maintenance Agreement": ("Contractor", "Owner", "Maintenance Services", "Diagnostic Software", "P", "sth"),
}

# What a licence covers, and what "goods" are, by the first word of the document name.
LICENSED = {
    "Patent": ("Licensed Patents", "Licensed Products"), "Software": ("Licensed Software", "Deliverables"),
    "Trademark": ("Licensed Marks", "Licensed Products"), "Content": ("Licensed Works", "Licensed Products"),
}  # fmt: skip

DEALS = """
License Agreement | Technology License Agreement | Orsevane Robotics, Inc. | a Delaware corporation | Orsevane | Pittsburgh, Pennsylvania | Bramfield Orchards Cooperative | an Oregon agricultural cooperative | Bramfield | Hood River, Oregon | fruit-picking gripper technology | orchard harvesting equipment | Oregon, Washington and Idaho | Oregon | 2011-03-14 | P
License Agreement | Patent License Agreement | Lumivora Photonics Corp. | a California corporation | Lumivora | Fremont, California | Dunmarsh Surgical Ltd. | a company organized under the laws of Ireland | Dunmarsh | Galway, Ireland | fiber-optic illumination modules | minimally invasive surgical instruments | the European Union and Switzerland | California | 2008-06-30 | P
License Agreement | Software License Agreement | Pellucor Systems, Inc. | a Delaware corporation | Pellucor | Austin, Texas | Harrowgate Freight Holdings, LLC | a Tennessee limited liability company | Harrowgate | Memphis, Tennessee | route-planning software | regional freight forwarding | the United States and Canada | Texas | 2016-09-01 | P
License Agreement | Trademark License Agreement | Sable & Finch Outfitters, Inc. | a Vermont corporation | Sable & Finch | Burlington, Vermont | Kestrelway Footwear Co. | a Massachusetts corporation | Kestrelway | Worcester, Massachusetts | outdoor apparel brands | hiking boots and sandals | North America | Massachusetts | 2004-11-22 | C
License Agreement | Content License Agreement | Ninefold Almanac Press, LLC | a New York limited liability company | Ninefold | Ithaca, New York | Verityne Learning Corp. | a Delaware corporation | Verityne | Columbus, Ohio | illustrated science readers | online tutoring programs | all English-speaking countries | New York | 2013-01-18 | C
Supply Agreement | Supply Agreement | Calderwick Dairy Ingredients, Inc. | a Wisconsin corporation | Calderwick | Eau Claire, Wisconsin | Frostella Brands Corp. | a Delaware corporation | Frostella | Richmond, Virginia | whey protein concentrates | packaged frozen desserts | the continental United States | Wisconsin | 2009-05-06 | P
Supply Agreement | Component Supply Agreement | Tessarin Magnetics Ltd. | an English private limited company | Tessarin | Sheffield, England | Ovandale Turbines, Inc. | a Colorado corporation | Ovandale | Golden, Colorado | rare-earth rotor magnets | small wind turbines | the United States and the United Kingdom | England and Wales | 2012-02-27 | C
Supply Agreement | Raw Materials Supply Agreement | Grellstone Minerals Company | a Nevada corporation | Grellstone | Elko, Nevada | Quillmere Ceramics, Inc. | a North Carolina corporation | Quillmere | Asheville, North Carolina | calcined kaolin clay | porcelain tableware | the southeastern United States | North Carolina | 2001-08-15 | C
Supply Agreement | Packaging Supply Agreement | Wrenlock Paperboard, LLC | a Georgia limited liability company | Wrenlock | Macon, Georgia | Marlowick Grocers, Inc. | a Florida corporation | Marlowick | Tampa, Florida | folding cartons and corrugated trays | supermarket retailing | Florida, Georgia and Alabama | Georgia | 2015-10-05 | C
Supply Agreement | Medical Device Supply Agreement | Arquebel Polymers GmbH | a German limited liability company | Arquebel | Kassel, Germany | Novembra Infusion Systems, Inc. | a Minnesota corporation | Novembra | Rochester, Minnesota | medical-grade tubing sets | home infusion pumps | Germany, Austria and the United States | Minnesota | 2018-04-11 | C
Distributor Agreement | Distributor Agreement | Hollenbrook Compressor Works, Inc. | an Ohio corporation | Hollenbrook | Dayton, Ohio | Pacific Tarn Trading Pte. Ltd. | a Singapore private limited company | Pacific Tarn | Singapore | commercial refrigeration compressors | cold-chain equipment | Singapore, Malaysia and Indonesia | Ohio | 2007-07-19 | P
Distributor Agreement | Exclusive Distribution Agreement | Mirevale Botanicals, Inc. | a Utah corporation | Mirevale | Provo, Utah | Altaquina Salud S.A. | a company organized under the laws of Chile | Altaquina | Santiago, Chile | herbal skin-care preparations | pharmacy wholesaling | Chile, Peru and Bolivia | Utah | 2010-12-02 | P
Distributor Agreement | International Distributor Agreement | Skarnholt Marine Electronics AS | a Norwegian company | Skarnholt | Bergen, Norway | Bluefathom Supply Corp. | a Rhode Island corporation | Bluefathom | Newport, Rhode Island | depth sounders and chart plotters | recreational boating supplies | New England and the Mid-Atlantic states | Rhode Island | 2014-03-25 | C
Distributor Agreement | Distribution Agreement | Thornapple Seed Company | a Michigan corporation | Thornapple | Lansing, Michigan | Prairie Lantern Agronomy, LLC | a Kansas limited liability company | Prairie Lantern | Salina, Kansas | hybrid sorghum seed | farm inputs retailing | Kansas, Nebraska and Oklahoma | Michigan | 2003-02-10 | P
Reseller Agreement | Value Added Reseller Agreement | Cindervault Security, Inc. | a Delaware corporation | Cindervault | Boise, Idaho | Northgable Integrators, Inc. | a Minnesota corporation | Northgable | Duluth, Minnesota | network intrusion sensors | systems integration for public utilities | the United States | Delaware | 2006-05-23 | P
Reseller Agreement | Reseller Agreement | Ondurra Telematics Pty Ltd | an Australian proprietary company | Ondurra | Adelaide, Australia | Waymont Fleet Solutions, LLC | an Arizona limited liability company | Waymont | Tempe, Arizona | vehicle tracking software | fleet leasing | the western United States | Arizona | 2017-06-12 | C
Reseller Agreement | Master Reseller Agreement | Pellucor Systems, Inc. | a Delaware corporation | Pellucor | Austin, Texas | Tidewell Logistics Software B.V. | a Dutch private company | Tidewell | Rotterdam, the Netherlands | warehouse scheduling software | port terminal automation | Belgium, the Netherlands and Luxembourg | New York | 2018-01-29 | P
Reseller Agreement | Channel Reseller Agreement | Amberjot Diagnostics, Inc. | a Maryland corporation | Amberjot | Frederick, Maryland | Clearmoor Veterinary Supply, Inc. | a Kentucky corporation | Clearmoor | Lexington, Kentucky | benchtop blood analyzers and assay software | veterinary clinic supplies | the United States and Puerto Rico | Maryland | 2012-10-17 | P
Service Agreement | Master Services Agreement | Gantrell Process Outsourcing, Inc. | a New Jersey corporation | Gantrell | Trenton, New Jersey | Elmspire Mutual Holdings, Inc. | a Connecticut corporation | Elmspire | Hartford, Connecticut | claims intake and mailroom services | property insurance | the northeastern United States | Connecticut | 2005-09-12 | C
Service Agreement | Services Agreement | Rookhaven Facilities Group, LLC | an Illinois limited liability company | Rookhaven | Peoria, Illinois | Marlowick Grocers, Inc. | a Florida corporation | Marlowick | Tampa, Florida | refrigeration monitoring and cleaning services | supermarket retailing | Florida | Florida | 2019-02-04 | C
Service Agreement | Laboratory Services Agreement | Vessaly Bioanalytics, Inc. | a Massachusetts corporation | Vessaly | Waltham, Massachusetts | Corrinel Therapeutics, Inc. | a Delaware corporation | Corrinel | Durham, North Carolina | bioanalytical testing services | oral vaccines | the United States | Massachusetts | 2020-07-08 | C
Service Agreement | Transfer and Administrative Services Agreement | Stonequay Fund Services Limited | a Cayman Islands exempted company | Stonequay | George Town, Cayman Islands | Larkmont Timber Income Fund, L.P. | a Delaware limited partnership | Larkmont | Portland, Maine | investor recordkeeping services | timberland investment | the United States and the Cayman Islands | Maine | 2014-08-21 | C
Consulting Agreement | Consulting Agreement | Pendry Vale Advisors, LLC | a Colorado limited liability company | Pendry Vale | Boulder, Colorado | Hexamere Energy Storage, Inc. | a Nevada corporation | Hexamere | Reno, Nevada | grid interconnection advice | stationary battery systems | Nevada and California | Nevada | 2016-04-18 | C
Consulting Agreement | Regulatory Consulting Agreement | Istrel Compliance Partners, Inc. | a Virginia corporation | Istrel | Alexandria, Virginia | Juniperon Devices Corp. | a Washington corporation | Juniperon | Spokane, Washington | regulatory filing advice | wearable hearing aids | the United States and Japan | Virginia | 2011-11-07 | C
Consulting Agreement | Management Consulting Agreement | Oldfield Marrow Associates LLP | a New York limited liability partnership | Oldfield Marrow | Albany, New York | Kaimorrow Resorts International, Inc. | a Hawaii corporation | Kaimorrow | Honolulu, Hawaii | hotel turnaround advice | beach resorts | the Hawaiian Islands and Guam | Hawaii | 2002-03-29 | C
Development Agreement | Product Development Agreement | Orsevane Robotics, Inc. | a Delaware corporation | Orsevane | Pittsburgh, Pennsylvania | Felspar Aerostructures, Inc. | a Kansas corporation | Felspar | Wichita, Kansas | automated rivet-inspection cells | aircraft fuselage panels | the United States | Pennsylvania | 2013-05-30 | P
Development Agreement | Software Development Agreement | Quorrin Labs, Inc. | a Washington corporation | Quorrin | Bellevue, Washington | Saltmarsh Credit Union Services, Inc. | a South Carolina corporation | Saltmarsh | Charleston, South Carolina | mobile banking software | credit union back-office processing | the United States | South Carolina | 2015-08-03 | C
Development Agreement | Joint Development Agreement | Brackenfold Materials Corp. | a Pennsylvania corporation | Brackenfold | Allentown, Pennsylvania | Aurelith Battery Company | a Michigan corporation | Aurelith | Holland, Michigan | porous graphite coatings | lithium cell manufacturing | worldwide markets | Michigan | 2019-10-14 | C
Development Agreement | Game Development and Publishing Agreement | Foxglove Parade Studios, Inc. | a California corporation | Foxglove Parade | Oakland, California | Merrowick Interactive plc | an English public limited company | Merrowick | Guildford, England | narrative puzzle games | console game publishing | all countries of the world | California | 2007-01-26 | C
Hosting Agreement | Web Hosting Agreement | Silverpane Networks, Inc. | a Virginia corporation | Silverpane | Reston, Virginia | Tallowmere Auctions, Inc. | a Delaware corporation | Tallowmere | Providence, Rhode Island | web hosting | online estate auctions | the United States | Virginia | 2000-06-09 | C
Hosting Agreement | Application Hosting Agreement | Driftmoor Cloud, LLC | a Utah limited liability company | Driftmoor | Ogden, Utah | Parchwell Health Records, Inc. | a Tennessee corporation | Parchwell | Nashville, Tennessee | application hosting | electronic patient charts | the United States and Canada | Tennessee | 2012-07-31 | C
Hosting Agreement | Hosting and Support Agreement | Ironpetal Data Centers Ltd. | a company organized under the laws of Ontario | Ironpetal | Kitchener, Ontario | Beaconry Ticketing Corp. | a Delaware corporation | Beaconry | Buffalo, New York | managed server hosting | event ticketing | Canada and the United States | Ontario | 2009-09-24 | C
Hosting Agreement | Managed Hosting Services Agreement | Cairnlight Hosting, Inc. | a Montana corporation | Cairnlight | Missoula, Montana | Vintry Exchange, Inc. | a California corporation | Vintry Exchange | Napa, California | managed database hosting | wine trading platforms | the United States | Montana | 2018-11-13 | C
Franchise Agreement | Franchise Agreement | Copperkettle Bakehouse Franchising, LLC | a Missouri limited liability company | Copperkettle | St. Louis, Missouri | Redwillow Hospitality, Inc. | an Arkansas corporation | Redwillow | Little Rock, Arkansas | artisan breads and bakery-cafe fare | cafe operation | Pulaski County, Arkansas | Missouri | 2010-02-16 | C
Franchise Agreement | Unit Franchise Agreement | Tumblecrest Gyms International, Inc. | a Texas corporation | Tumblecrest | Plano, Texas | Southmesa Fitness Partners, L.P. | a New Mexico limited partnership | Southmesa | Albuquerque, New Mexico | children's gymnastics programs | family fitness centers | Bernalillo County, New Mexico | Texas | 2013-06-20 | P
Maintenance Agreement | Equipment Maintenance Agreement | Voltgarde Elevator Services, Inc. | an Illinois corporation | Voltgarde | Chicago, Illinois | Kingsdeep Properties Trust | a Maryland real estate investment trust | Kingsdeep | Baltimore, Maryland | elevator maintenance | office building ownership | Maryland and Virginia | Maryland | 2008-10-08 | C
Maintenance Agreement | Software Maintenance Agreement | Quorrin Labs, Inc. | a Washington corporation | Quorrin | Bellevue, Washington | Farrowdell Savings Bancorp | an Iowa corporation | Farrowdell | Cedar Rapids, Iowa | software maintenance | community banking | Iowa, Minnesota and Wisconsin | Iowa | 2017-12-06 | P
""".strip().splitlines()

# Near-duplicates on purpose: (number of the deal above, counting from 0; what changes; clauses dropped; clauses added).
# First an amended and restated version of the dairy supply agreement, filed by the other party; then two more
# franchises on the bakehouse template, so that with the first they make a trio.
DUPLICATES = [
    (
        5,
        {"doc": "Amended and Restated Supply Agreement", "date": "2012-06-18", "filed": "C"},
        ["mfn"],
        ["price"],
    ),
    (
        33,
        {
            "C_full": "Larkspur Commons Dining, LLC", "C_form": "a Kansas limited liability company",
            "C_short": "Larkspur Commons", "C_city": "Topeka, Kansas",
            "territory": "Shawnee County, Kansas", "date": "2011-07-11",
        },
        [],
        [],
    ),
    (
        33,
        {
            "C_full": "Ozark Lamplight Foods, Inc.", "C_form": "a Missouri corporation",
            "C_short": "Ozark Lamplight", "C_city": "Springfield, Missouri",
            "territory": "Greene County, Missouri", "date": "2012-09-05",
        },
        ["renew", "notice"],
        ["nse"],
    ),
]

PEOPLE = """Adela Marchbanks|Rowan Tillinghast|Imogen Sayle|Desmond Okparaku|Celia Varnholt|Theodore Quist
Marisol Etxarri|Leopold Grange|Hanneke Droste|Samuel Birdwhistell|Priya Nandakar|Owen Lathbury|Beatrix Colm
Farid Nasserian|Junia Pettibone|Caspar Hollins|Mireille Dufand|Amos Trevanion""".replace("\n", "|").split("|")

OFFICES = ["President", "Chief Executive Officer", "Chief Operating Officer", "Vice President, Finance", "Director",
           "General Counsel", "Managing Director", "Senior Vice President"]
