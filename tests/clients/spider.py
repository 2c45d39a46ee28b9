"""A Scrapy spider that knows nothing of the gateway: the two lines are in settings.py.

Arguments (-a): the target without and with TLS. Every answer is one line on standard output.
"""

import scrapy


class Spider(scrapy.Spider):
    name = "spider"
    custom_settings = {"LOG_LEVEL": "WARNING", "RETRY_ENABLED": False, "TELNETCONSOLE_ENABLED": False}

    async def start(self):
        for target in self.plain, self.tls:
            for number in range(10):
                yield scrapy.Request(f"{target}/get?number={number}")
            yield scrapy.FormRequest(f"{target}/post", formdata={"a": "b"})

    def parse(self, response):
        print(response.url, response.json().get("data", ""))
