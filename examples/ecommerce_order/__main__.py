"""What does ``python -m examples.ecommerce_order`` run?"""

import asyncio

from examples.ecommerce_order.main import main

asyncio.run(main())
