import uuid

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("sku", models.CharField(max_length=20)),
                ("amount", models.DecimalField(decimal_places=2, max_digits=8)),
                ("state", models.CharField(default="new", max_length=20)),
            ],
        ),
    ]
