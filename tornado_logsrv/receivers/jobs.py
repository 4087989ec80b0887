"""``POST /add-job``: one JSON body, any JSON value, one record."""

from .. import jsontext, records
from ..handler import BodyHandler


class JobHandler(BodyHandler):
    """Takes one job."""

    def post(self) -> None:
        """202 with the record's id and how it was acknowledged."""
        application = self.application
        value, notes = jsontext.read(self.body)
        record_id = application.ids.next()
        record = records.encode_job(value, notes, record_id, application.now_ms())
        ack = application.accept([record])
        self.answer(202, {"message": "Job added", "id": record_id.hex(), "ack": ack})
